//! How a run of the machine ended.
use std::process::ExitCode;

use serde_json::{Value, json};

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
    /// The machine was ended by its debugger.
    Debugged,
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
            Self::Debugged => 0,
            Self::Panicked => 101,
            Self::Reset => 102,
            Self::TimedOut(_) => 103,
            Self::Interrupted(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)),
        }
    }

    /// One sentence for the user, where the kernel's own output does not tell enough.
    pub fn sentence(self) -> Option<String> {
        match self {
            Self::Status(_) | Self::Debugged | Self::Interrupted(_) => None,
            Self::Panicked => Some("the kernel panicked (its report is above)".into()),
            Self::Reset => Some("the machine reset without a word from the kernel (a triple fault?)".into()),
            Self::TimedOut(seconds) => Some(format!("the machine was stopped: no end within {seconds} s")),
        }
    }
}

/// For files: a name, and a number where there is one.
impl From<Outcome> for Value {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Status(status) => json!({ "status": status }),
            Outcome::Debugged => json!("debugged"),
            Outcome::Panicked => json!("panicked"),
            Outcome::Reset => json!("reset"),
            Outcome::TimedOut(seconds) => json!({ "timed out": seconds }),
            Outcome::Interrupted(signal) => json!({ "interrupted": signal }),
        }
    }
}

impl Outcome {
    /// How a run ended that the runner stopped, from what was kept of its outcome. None: it ended by itself, or this was
    /// never an outcome.
    pub(crate) fn stopped(kept: &Value) -> Option<Self> {
        let signal = || i32::try_from(kept["interrupted"].as_i64()?).ok().map(Self::Interrupted);
        let debugged = || (kept == "debugged").then_some(Self::Debugged);
        kept["timed out"].as_u64().map(Self::TimedOut).or_else(signal).or_else(debugged)
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
        assert_eq!(Outcome::Debugged.status(), 0);
        assert_eq!(Outcome::Interrupted(2).status(), 130);
    }

    #[test]
    fn what_stopped_a_run_is_read_back() {
        for stopped in [Outcome::TimedOut(200), Outcome::Interrupted(15)] {
            assert_eq!(Outcome::stopped(&Value::from(stopped)), Some(stopped));
        }
        for other in [Outcome::Status(3), Outcome::Panicked, Outcome::Reset] {
            assert_eq!(Outcome::stopped(&Value::from(other)), None);
        }
        for nonsense in [json!(null), json!({ "timed out": -1 }), json!({ "interrupted": 1_u64 << 40 })] {
            assert_eq!(Outcome::stopped(&nonsense), None);
        }
    }

    #[test]
    fn only_what_the_kernel_did_not_tell_gets_a_sentence() {
        assert_eq!(Outcome::Status(7).sentence(), None);
        assert!(Outcome::TimedOut(9).sentence().unwrap().contains("9 s"));
    }
}
