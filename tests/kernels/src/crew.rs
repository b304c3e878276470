//! Threads that are started, watched and joined together.

use alloc::{string::String, vec::Vec};

use executor::WaitReason;
use kernel::thread::{self, EndReason, Thread, ThreadHandle};

use crate::check::{Failure, Needed, Outcome, ensure, eventually, while_counting};

/// What a thread does, for a failure's sentence.
fn whereabouts(thread: &Thread) -> String {
    let faults = thread.stats().faults;
    match thread.task() {
        Some(task) => match task.wait() {
            Some((why, since)) => alloc::format!("waits for {why} since {since} ns, after {faults} faults"),
            None => alloc::format!("is {:?} after {faults} faults", task.state()),
        },
        None => "was never polled".into(),
    }
}

/// Some threads.
#[derive(Default)]
pub(crate) struct Crew {
    handles: Vec<ThreadHandle>,
}

impl Crew {
    /// One kernel thread more.
    pub(crate) fn add(&mut self, name: &'static str, run: impl FnMut() + Send + 'static) -> Outcome {
        self.handles.push(thread::spawn(name, run).needed("a thread could not be started")?);
        Ok(())
    }

    /// This thread, too.
    pub(crate) fn adopt(&mut self, handle: ThreadHandle) {
        self.handles.push(handle);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    /// How many of them wait for this reason now.
    pub(crate) fn waiting_for(&self, reason: WaitReason) -> usize {
        let waits = |handle: &&ThreadHandle| {
            let wait = handle.thread().task().and_then(|task| task.wait());
            wait.is_some_and(|(why, _)| why == reason)
        };
        self.handles.iter().filter(waits).count()
    }

    /// Waits until all of them wait for this reason.
    pub(crate) async fn all_wait_for(&self, reason: WaitReason) -> Outcome {
        let all = self.len();
        eventually(&alloc::format!("{all} threads wait for {reason}"), || self.waiting_for(reason) == all)
            .await
    }

    /// How many page faults they had.
    pub(crate) fn faults(&self) -> u32 {
        self.handles.iter().map(|handle| handle.thread().stats().faults).sum()
    }

    /// Kills all of them.
    pub(crate) fn kill(&self) {
        self.handles.iter().for_each(|handle| handle.thread().kill());
    }

    /// Kills one of them, by the order in which they came.
    pub(crate) fn kill_one(&self, number: usize) {
        self.handles[number].thread().kill();
    }

    /// Waits for their ends.
    pub(crate) async fn join(self) -> Result<Vec<EndReason>, Failure> {
        self.join_while_counting(|| 0).await
    }

    /// Waits for their ends for as long as `count` moves.
    async fn join_while_counting(self, count: impl Fn() -> usize) -> Result<Vec<EndReason>, Failure> {
        let mut ends = Vec::with_capacity(self.handles.len());
        for handle in self.handles {
            let thread = handle.thread().clone();
            let what = alloc::format!("a thread \"{}\" ends", thread.name());
            let end = while_counting(&what, handle, &count).await;
            ends.push(end.map_err(|why| Failure::new(alloc::format!("{why}: it {}", whereabouts(&thread))))?);
        }
        Ok(ends)
    }

    /// Waits for their ends, which must be good ones.
    pub(crate) async fn finish(self) -> Outcome {
        self.finish_while_counting(|| 0).await
    }

    /// Waits for their ends, which must be good ones, for as long as `count` moves.
    pub(crate) async fn finish_while_counting(self, count: impl Fn() -> usize) -> Outcome {
        for end in self.join_while_counting(count).await? {
            ensure!(end == EndReason::Finished(0), "a thread was {end}");
        }
        Ok(())
    }
}
