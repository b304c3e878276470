//! No QEMU outlives its runner.
//!
//! A child process can ask the system to be killed when its parent dies, but only from inside the child. So
//! the runner starts itself once more under a secret first argument; that process asks, and becomes QEMU.
use std::ffi::{OsStr, OsString};
use std::process::Command;

use crate::tell;

const LAUNCH: &str = "--launch-and-die-with";

/// Must be the first thing in `main` of every program that starts a [`Machine`](crate::Machine). Returns
/// unless this process was started by `command`.
pub fn become_child_if_asked() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|first| first != LAUNCH) {
        return;
    }
    let why = launch(args);
    tell(why);
    std::process::exit(127);
}

/// A call of `program` that ends when the calling *thread* does.
pub(crate) fn command(program: &OsStr) -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    // Not the file's name: cargo may have replaced the file since this process started.
    let mut command = Command::new("/proc/self/exe");
    command.arg(LAUNCH).arg(std::process::id().to_string()).arg(program);
    command
}

/// Becomes the named program. Returns why it could not.
#[cfg(target_os = "linux")]
fn launch(mut args: impl Iterator<Item = OsString>) -> String {
    use std::os::unix::process::CommandExt as _;

    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    let parent = args.next().and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    let Some(program) = args.next() else { return "nothing to launch".into() };
    if let Err(why) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("cannot tie {} to its parent: {why}", program.display());
    }
    // The parent may have died before that call.
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != parent {
        return "the parent is gone".into();
    }
    let why = Command::new(&program).args(args).exec();
    format!("cannot start {}: {why}", program.display())
}

#[cfg(not(target_os = "linux"))]
fn launch(_args: impl Iterator<Item = OsString>) -> String {
    "not needed on this system".into()
}
