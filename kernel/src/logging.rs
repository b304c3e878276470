//! The log: lines on the console with the time, the level and the module that they come from.
//!
//! `--log SPEC` on the command line and `log SPEC` at the console say which modules tell how much: see [`Levels`]. What is
//! off in all modules costs a load and a compare where it stands. A line may be written from anywhere: no lock, nothing
//! allocated.

mod levels;
mod spec;

pub(crate) use levels::Levels;
pub(crate) use spec::SpecError;

use crate::{clock, machine, println, trace};

static LEVELS: Levels = Levels::new();

/// Begins to log. First at boot: what is logged before is lost by design.
pub(crate) fn init() {
    let _ = log::set_logger(&Log).map(|()| log::set_max_level(LEVELS.most()));
}

/// Does what the command line says. Once at boot, when it can be read.
pub(crate) fn read_options() {
    if let Some(spec) = machine::options().value("log")
        && let Err(error) = set(spec)
    {
        log::warn!("log={spec}: {error}");
    }
}

/// Logs what `spec` says from now on. From tasks and threads.
///
/// # Errors
/// When it is none; then all is as it was.
pub(crate) fn set(spec: &str) -> Result<(), SpecError> {
    LEVELS.set(spec)?;
    log::set_max_level(LEVELS.most());
    // What happens to pages is told where somebody wants to know.
    trace::tell_log(LEVELS.level_of(trace::MM) == log::LevelFilter::Trace);
    Ok(())
}

/// What is logged.
pub(crate) fn levels() -> &'static Levels {
    &LEVELS
}

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= LEVELS.level_of(metadata.target())
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = clock::now();
        println!(
            "[{:5}.{:06}] {:<5} {}: {}",
            now / 1_000_000_000,
            now / 1_000 % 1_000_000,
            record.level(),
            record.target(),
            record.args()
        );
    }

    fn flush(&self) {}
}
