//! How a run of the machine ended.
use std::process::ExitCode;

/// How a run of the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel powered off with this status.
    Status(u8),
    /// The kernel panicked.
    Panicked,
    /// The machine stopped and the kernel had not said why: a triple fault or an unexpected reset.
    Reset,
    /// The time limit passed, in seconds.
    TimedOut(u64),
    /// The runner was told to stop by this signal.
    Interrupted(i32),
}

impl Outcome {
    /// The exit status of a run that could not begin.
    pub const SETUP_ERROR: u8 = 104;

    /// The exit status that stands for this outcome.
    pub fn status(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::Panicked => 101,
            Self::Reset => 102,
            Self::TimedOut(_) => 103,
            Self::Interrupted(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
        }
    }

    /// One sentence for the user, where the kernel's own output does not tell enough.
    pub fn sentence(self) -> Option<String> {
        match self {
            Self::Status(_) | Self::Interrupted(_) => None,
            Self::Panicked => Some("the kernel panicked (its report is above)".into()),
            Self::Reset => Some("the machine reset without a word from the kernel (a triple fault?)".into()),
            Self::TimedOut(seconds) => Some(format!("the machine was stopped: no end within {seconds} s")),
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_that_the_manual_promises() {
        assert_eq!(Outcome::Status(0).status(), 0);
        assert_eq!(Outcome::Status(255).status(), 255);
        assert_eq!(Outcome::Panicked.status(), 101);
        assert_eq!(Outcome::Reset.status(), 102);
        assert_eq!(Outcome::TimedOut(1).status(), 103);
        assert_eq!(Outcome::Interrupted(2).status(), 130);
    }

    #[test]
    fn only_what_the_kernel_did_not_tell_gets_a_sentence() {
        assert_eq!(Outcome::Status(7).sentence(), None);
        assert!(Outcome::TimedOut(9).sentence().unwrap().contains("9 s"));
    }
}
