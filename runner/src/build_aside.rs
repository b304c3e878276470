//! A build that goes on beside others, and is ended with everything that it started when one of those fails: the error
//! is all that anybody wants to see then.
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::tell;

/// How often a wait tells that it goes on.
const TELL: Duration = Duration::from_secs(20);

/// A build under way. Dropping it ends it.
pub(crate) struct BuildAside {
    child: Child,
    what: &'static str,
    since: Instant,
}

impl BuildAside {
    /// Starts it. `what` says what is done, for who waits.
    pub(crate) fn start(mut command: Command, what: &'static str) -> io::Result<Self> {
        Ok(Self { child: command.spawn()?, what, since: Instant::now() })
    }

    /// Waits for its end, and tells on standard error that it goes on.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        let (done, wait) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (what, since) = (self.what, self.since);
            scope.spawn(move || {
                while wait.recv_timeout(TELL) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tell(format_args!("still {what}, {} s so far", since.elapsed().as_secs()));
                }
            });
            let status = self.child.wait();
            drop(done);
            status
        })
    }
}

impl Drop for BuildAside {
    fn drop(&mut self) {
        // One that has ended has been waited for: nobody else can have its number before.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A process group of its own would be simpler, but then Ctrl-C on the terminal would not reach it.
        for process in with_descendants(self.child.id()) {
            end(process);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process and all that it and its children have started, it first.
fn with_descendants(process: u32) -> Vec<u32> {
    let pairs: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|child| Some((child, parent(child)?)))
        .collect();
    let mut found = vec![process];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(pairs.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        next += 1;
    }
    found
}

/// The process that started this one; `None` when it has ended.
fn parent(process: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name stands in brackets and may hold anything; state and parent follow.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

#[cfg(unix)]
fn end(process: u32) {
    use rustix::process::{Pid, Signal, kill_process};

    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn end(_process: u32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_is_dropped_ends_with_all_that_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'sleep 1000; true' & wait"]);
        let build = BuildAside::start(command, "sleeping").expect("there is a shell");
        let began = Instant::now();
        // The shell, the shell in it, and what that waits for.
        let mut all = Vec::new();
        while all.len() < 3 {
            assert!(began.elapsed() < Duration::from_secs(30), "{all:?}");
            all = with_descendants(build.child.id());
        }
        drop(build);
        assert!(began.elapsed() < Duration::from_secs(100), "it was waited for");
        // What is nobody's child any more is gone when the system has noticed.
        while all.iter().any(|&process| parent(process).is_some()) {
            assert!(began.elapsed() < Duration::from_secs(100), "{all:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_build_that_has_ended_says_how() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let build = BuildAside::start(command, "failing").expect("there is a shell");
        assert_eq!(build.wait().expect("it is our child").code(), Some(3));
    }
}
