//! Counting the instructions of an operation with callgrind: this program runs itself with n operations and with 2 n. The
//! difference, divided by n, is one operation's share, whatever the set-up costs.

use std::fs;
use std::process::{Command, Stdio};

/// The numbers that follow `--child`, in a process that was started to be counted.
pub(crate) fn child() -> Option<Vec<usize>> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("--child") {
        return None;
    }
    Some(words.map(|word| word.parse().expect("numbers follow")).collect())
}

/// Instructions of one operation of a workload that is named by these numbers. A child process gets them, and after
/// them the number of operations.
pub(crate) fn of_one(workload: &[usize], operations: usize) -> f64 {
    let one = instructions(workload, operations);
    (instructions(workload, 2 * operations) - one) as f64 / operations as f64
}

/// All instructions of a process that does so many operations.
fn instructions(workload: &[usize], operations: usize) -> u64 {
    let this = std::env::current_exe().expect("this program has a path");
    let words: Vec<_> = workload.iter().chain([&operations]).map(usize::to_string).collect();
    let file = std::env::temp_dir().join(format!("mm-{}-{}", std::process::id(), words.join("-")));
    let status = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(this)
        .arg("--child")
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "valgrind fails; ./setup.sh installs it");
    let text = fs::read_to_string(&file).expect("callgrind writes its file");
    // What is left of it is in the temporary files.
    let _ = fs::remove_file(&file);
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind has counted")
}
