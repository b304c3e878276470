//! A guest test as a line of a table.
use std::time::Duration;

use anyhow::{Result, bail};
use faultline::{Firmware, Outcome};

use crate::disks::TestDisk;
use crate::session::{Report, Session};

/// A guest test. Build it with [`Case::new`] and the methods that follow.
pub struct Case {
    /// Its name in the list, and for the kernel after `test=`.
    pub name: &'static str,
    /// What boots.
    pub kernel: Kernel,
    /// The machine, made when the test begins.
    pub setup: Box<dyn Fn() -> Setup + Send + Sync>,
    /// Longer means failed. For the machine, without the time to build.
    pub limit: Duration,
    /// No other test runs meanwhile: for what measures time.
    pub alone: bool,
    /// What must come of it.
    pub verdict: Verdict,
}

/// Which kernel a test boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// The kernel of `cargo run`.
    Main,
    /// This binary of the test kernels.
    Test(&'static str),
}

/// The machine of a test.
#[derive(Debug)]
pub struct Setup {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// What starts it.
    pub firmware: Firmware,
    /// Its disks in their order.
    pub disks: Vec<TestDisk>,
    /// The disk for swap, the last of all.
    pub swap: Option<TestDisk>,
    /// The disk of user programs follows the others.
    pub programs: bool,
    /// A nanosecond is an instruction.
    pub icount: bool,
    /// More words of the kernel's command line.
    pub cmdline: String,
    /// The one command to run.
    pub exec: Option<String>,
    /// Offer the console.
    pub console: bool,
    /// The kernel records, and what it says of pages must be possible.
    pub trace: bool,
}

impl Default for Setup {
    /// One processor, 256 MiB, BIOS, no disks.
    fn default() -> Self {
        Self {
            memory_mib: 256,
            cpus: 1,
            firmware: Firmware::Bios,
            disks: Vec::new(),
            swap: None,
            programs: false,
            icount: false,
            cmdline: String::new(),
            exec: None,
            console: false,
            trace: false,
        }
    }
}

/// What decides whether a test passed.
pub enum Verdict {
    /// The kernel says `test NAME ok` and ends with status 0.
    KernelSays,
    /// The kernel panics, and its console shows each of these texts.
    Panics(&'static [&'static str]),
    /// This function drives the machine and decides.
    Drives(fn(Session) -> Result<()>),
}

impl Case {
    /// A test in which the kernel says how it went, within a minute.
    pub fn new(name: &'static str, kernel: Kernel) -> Self {
        Self {
            name,
            kernel,
            setup: Box::new(Setup::default),
            limit: Duration::from_secs(60),
            alone: false,
            verdict: Verdict::KernelSays,
        }
    }

    /// With this machine.
    #[must_use]
    pub fn on(mut self, setup: impl Fn() -> Setup + Send + Sync + 'static) -> Self {
        self.setup = Box::new(setup);
        self
    }

    /// The kernel records, and each change of a page's state must be one that can happen.
    #[must_use]
    pub fn traced(mut self) -> Self {
        let setup = self.setup;
        self.setup = Box::new(move || Setup { trace: true, ..setup() });
        self
    }

    /// With another time limit.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// With no other test beside it.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Must end in a panic whose report has these texts.
    #[must_use]
    pub fn panics(mut self, texts: &'static [&'static str]) -> Self {
        self.verdict = Verdict::Panics(texts);
        self
    }

    /// Is driven from the host.
    #[must_use]
    pub fn driven(mut self, by: fn(Session) -> Result<()>) -> Self {
        self.verdict = Verdict::Drives(by);
        self
    }

    /// Decides over a machine that has just started.
    ///
    /// # Errors
    /// Why the test failed.
    pub fn judge(&self, session: Session) -> Result<()> {
        match self.verdict {
            Verdict::KernelSays => {
                let report = session.finish()?;
                report.test_passed(self.name)?;
                if (self.setup)().trace && report.page_changes == 0 {
                    bail!("the test passed, but nothing was recorded of pages");
                }
                Ok(())
            }
            Verdict::Panics(texts) => session.finish()?.panicked_with(texts),
            Verdict::Drives(by) => by(session),
        }
    }
}

impl Report {
    /// Did the kernel say that this test passed, and end well?
    ///
    /// # Errors
    /// What it said or did instead.
    pub fn test_passed(&self, name: &str) -> Result<()> {
        match self.results.iter().find(|(test, _)| test == name) {
            Some((_, Err(why))) => bail!("{why}"),
            Some((_, Ok(()))) if self.outcome == Outcome::Status(0) => Ok(()),
            Some((_, Ok(()))) => bail!("the test passed, but then: {}", self.ending()),
            None => bail!("did not run to its end: {}", self.ending()),
        }
    }

    /// Did the kernel panic, with each of these texts on its console?
    ///
    /// # Errors
    /// What happened instead, or what is missing.
    pub fn panicked_with(&self, texts: &[&str]) -> Result<()> {
        if self.outcome != Outcome::Panicked {
            bail!("no panic: {}", self.ending());
        }
        for text in texts {
            if !self.console.contains(text) {
                bail!("the panic does not say `{text}`");
            }
        }
        Ok(())
    }

    /// Did the machine end with this status?
    ///
    /// # Errors
    /// How it ended instead.
    pub fn ended_with(&self, status: u8) -> Result<()> {
        if self.outcome != Outcome::Status(status) {
            bail!("status {status} expected: {}", self.ending());
        }
        Ok(())
    }

    /// How the machine ended, in words.
    pub fn ending(&self) -> String {
        match self.outcome {
            Outcome::Status(status) => format!("the kernel ended with status {status}"),
            outcome => outcome.sentence().unwrap_or_else(|| "the machine was interrupted".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome, results: &[(&str, Result<(), &str>)]) -> Report {
        let results = results.iter().map(|(name, result)| ((*name).into(), result.map_err(str::to_owned)));
        Report {
            outcome,
            console: "panic: a lock".into(),
            exec: String::new(),
            results: results.collect(),
            page_changes: 0,
        }
    }

    #[test]
    fn only_a_kernel_that_says_so_and_ends_well_has_passed() {
        let ok: &[(&str, Result<(), &str>)] = &[("a", Ok(()))];
        assert!(report(Outcome::Status(0), ok).test_passed("a").is_ok());
        for (outcome, results, part) in [
            (Outcome::Status(0), &[][..], "did not run"),
            (Outcome::Status(0), &[("b", Ok(()))][..], "did not run"),
            (Outcome::Reset, &[][..], "triple fault"),
            (Outcome::TimedOut(60), &[][..], "60 s"),
            (Outcome::Panicked, ok, "but then"),
            (Outcome::Status(1), ok, "status 1"),
            (Outcome::Status(0), &[("a", Err("2 loads"))][..], "2 loads"),
        ] {
            let why = report(outcome, results).test_passed("a").unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn a_panic_must_say_what_is_expected() {
        assert!(report(Outcome::Panicked, &[]).panicked_with(&["a lock"]).is_ok());
        assert!(report(Outcome::Panicked, &[]).panicked_with(&["a lock", "heap"]).is_err());
        assert!(report(Outcome::Status(0), &[]).panicked_with(&["a lock"]).is_err());
    }
}
