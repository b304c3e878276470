//! Why QEMU did not start a machine, or not end it in time.
use std::process::ExitStatus;
use std::time::Duration;

/// Why QEMU did not start the machine, from what it printed.
pub(super) fn sentence(messages: &[String], status: ExitStatus) -> String {
    let Some(message) = messages.iter().rev().find(|line| !line.trim().is_empty()) else {
        return format!("QEMU did not start the machine ({status})");
    };
    // QEMU names the file of a lock that it could not get in brackets.
    let locked = messages.iter().find(|line| line.contains("Is another process using"));
    if let Some(file) = locked.and_then(|line| Some(line.split_once('[')?.1.split_once(']')?.0)) {
        return format!("the disk file {file} is in use by another process");
    }
    if messages.iter().any(|line| line.contains("\" lock")) {
        return "a disk file is in use by another process".into();
    }
    let text = message.split_once(": ").map_or(message.as_str(), |(_, text)| text);
    format!("QEMU did not start the machine: {text}")
}

/// What is said about the screen of a machine that was stopped between its last word and its end: by the time limit, or
/// because that took as long as `patience`.
pub(super) fn cut_screen(limit: Option<Duration>, patience: Duration) -> String {
    let why = match limit {
        Some(limit) => {
            format!("the time limit of {} s came between the last word and the end", limit.as_secs())
        }
        None => format!("no power-off within {} s of the last word", patience.as_secs()),
    };
    format!("faultline: {why}: the screen may lack its end")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn refused(lines: &[&str]) -> String {
        sentence(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>(), ExitStatus::from_raw(0x100))
    }

    #[test]
    fn a_locked_disk_is_named() {
        let why = refused(&[
            r#"qemu-system-x86_64: -blockdev {"driver":"file"}: Failed to get "write" lock"#,
            "Is another process using the image [/tmp/a disk.img]?",
        ]);
        assert_eq!(why, "the disk file /tmp/a disk.img is in use by another process");
    }

    #[test]
    fn a_cut_screen_names_the_limit_that_cut_it() {
        let ten = Duration::from_secs(10);
        assert!(cut_screen(None, ten).contains("no power-off within 10 s of the last word"));
        let limited = cut_screen(Some(Duration::from_secs(7)), ten);
        assert!(limited.contains("the time limit of 7 s") && !limited.contains("10"), "{limited}");
    }

    #[test]
    fn other_refusals_quote_the_last_line() {
        let why = refused(&["qemu-system-x86_64: warning: old", "qemu-system-x86_64: -smp 0: nonsense"]);
        assert_eq!(why, "QEMU did not start the machine: -smp 0: nonsense");
        assert!(refused(&[]).contains("exit status: 1"));
    }
}
