//! The control channel: lines from the kernel to the runner, apart from everything a user may print.

/// One line of the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// `ready`: the console takes commands.
    Ready,
    /// `status N`: the kernel powers off next, with this status.
    Status(u8),
    /// `panic`: the kernel panicked; its report is on the console.
    Panic,
    /// `test NAME ok`, or `test NAME failed: WHY`.
    Test {
        /// The test's name.
        name: String,
        /// Nothing, or why it failed.
        result: Result<(), String>,
    },
    /// A line that means nothing to the runner, kept for whoever runs the machine.
    Other(String),
}

impl Control {
    /// Reads one line, without its end.
    pub fn parse(line: &str) -> Self {
        let line = line.trim_end();
        let known = match line.split_once(' ') {
            None if line == "ready" => Some(Self::Ready),
            None if line == "panic" => Some(Self::Panic),
            Some(("status", status)) => status.parse().ok().map(Self::Status),
            Some(("test", rest)) => Self::parse_test(rest),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(line.to_owned()))
    }

    fn parse_test(rest: &str) -> Option<Self> {
        let (name, result) = rest.split_once(' ')?;
        let result = match result.split_once(": ") {
            None if result == "ok" => Ok(()),
            Some(("failed", why)) => Err(why.to_owned()),
            _ => return None,
        };
        Some(Self::Test { name: name.to_owned(), result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_protocol_are_read() {
        assert_eq!(Control::parse("ready\r"), Control::Ready);
        assert_eq!(Control::parse("panic"), Control::Panic);
        assert_eq!(Control::parse("status 0"), Control::Status(0));
        assert_eq!(Control::parse("status 255"), Control::Status(255));
    }

    #[test]
    fn results_of_tests_are_read() {
        let ok = Control::Test { name: "one_load".into(), result: Ok(()) };
        assert_eq!(Control::parse("test one_load ok"), ok);
        let failed = Control::Test { name: "one_load".into(), result: Err("2 loads: too many".into()) };
        assert_eq!(Control::parse("test one_load failed: 2 loads: too many"), failed);
    }

    #[test]
    fn anything_else_is_kept_as_it_is() {
        for line in [
            "",
            "status",
            "status 256",
            "status -1",
            "status x",
            "readyish",
            "test",
            "test a",
            "test a maybe",
        ] {
            assert_eq!(Control::parse(line), Control::Other(line.to_owned()));
        }
    }
}
