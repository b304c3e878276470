//! Scenarios of the VM core, played by kernel threads: `cargo run -- --headless --vmscript FILE`.
//!
//! The player is that of the host (the crate `vmscript`), on memory that is taken out of the machine's. Each space of a
//! scenario is a lower half, and each access is made by a kernel thread that runs in it, as one load or store: so each
//! fault is the processor's. All threads of a scenario, and the player, stay on one CPU, so that they run in the order in
//! which they are woken, as on the host.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use executor::{TaskState, WaitReason, lock::SpinLock, yield_now};
use mm::{Denial, Memory, OutOfMemory, PageTable, Protection};
use vmscript::{Job, Player, Progress, TABLE_FRAMES};

use crate::{
    arch::{cpu, word},
    console, memory,
    thread::{self, EndReason, SpawnError, ThreadHandle, block_on},
};

/// Plays a scenario, prints its answers as the output of this run, and says with which status the run ends: 1 if a line was
/// wrong.
///
/// # Cancellation
/// The scenario is played to its end.
pub async fn run(script: &'static [u8]) -> u8 {
    let played = Arc::new(SpinLock::new("scenario", None));
    let to = played.clone();
    let faults = cpu::counters().page_faults;
    let player = thread::spawn_here("vmscript", None, move || {
        let mut print = |line: &str| {
            let mut line = String::from(line);
            line.push('\n');
            block_on(console::output().write(&line));
        };
        *to.lock() = Some(play(script, &mut print));
    });
    match player {
        Ok(player) => drop(player.await),
        Err(why) => log::error!("the scenario cannot be played: {why}"),
    }
    let faults = cpu::counters().page_faults - faults;
    log::info!("vmscript: the processor raised {faults} page faults");
    let played = *played.lock();
    u8::from(played != Some(true))
}

/// Plays a scenario, and gives each line of its answers to `print`. False when a line was wrong. For kernel threads that
/// stay on their CPU ([`thread::spawn_here`]).
pub fn play(script: &[u8], print: &mut dyn FnMut(&str)) -> bool {
    let mut player = Player::new(Machine::default());
    script.split(|&byte| byte == b'\n').for_each(|line| player.play(line, &mut *print));
    !player.was_wrong()
}

type Answer = Arc<SpinLock<Option<u64>>>;

/// A thread of a scenario.
struct Thread {
    handle: ThreadHandle,
    answer: Answer,
}

/// This machine, as the player sees it.
#[derive(Default)]
struct Machine {
    memory: Option<&'static Memory>,
    /// Threads that have not ended, as far as is known.
    threads: Vec<Arc<thread::Thread>>,
}

impl vmscript::Machine for Machine {
    type Thread = Thread;

    fn memory(&mut self, frames: usize) -> Option<&'static Memory> {
        // On the executor's stack, which has more room than a thread's.
        let made = executor::spawn(async move { memory::apart(frames, TABLE_FRAMES) });
        self.memory = block_on(made).ok().flatten();
        self.memory
    }

    fn empty_table(&mut self) -> Result<PageTable, OutOfMemory> {
        PageTable::new_user(self.memory.ok_or(OutOfMemory)?, memory::kernel_space().root())
    }

    fn protection(&self) -> Protection {
        Protection::READ_WRITE
    }

    fn start(&mut self, job: Job) -> Result<Thread, OutOfMemory> {
        let answer = Answer::new(SpinLock::new("answer", None));
        let to = answer.clone();
        let handle = match job {
            Job::Read(space, address) => thread::spawn_here("vmscript-read", Some(space), move || {
                let word = word::read(address);
                *to.lock() = Some(word);
            }),
            Job::Write(space, address, word) => {
                thread::spawn_here("vmscript-write", Some(space), move || {
                    word::write(address, word);
                    *to.lock() = Some(0);
                })
            }
            // What it waits with belongs to the thread's record, so a kill drops it.
            Job::Work(mut work) => thread::spawn_here("vmscript-work", None, move || {
                if thread::try_block_on(work.as_mut()).is_ok() {
                    *to.lock() = Some(0);
                }
            }),
        };
        let handle = handle.map_err(|_: SpawnError| OutOfMemory)?;
        self.threads.push(handle.thread().clone());
        Ok(Thread { handle, answer })
    }

    /// Two looks: whoever was at rest at the first may have been woken by one who was not looked at yet.
    fn settle(&mut self) {
        while self.look().is_none_or(|first| self.look() != Some(first)) {
            block_on(yield_now());
        }
    }

    fn progress(&mut self, thread: &mut Thread) -> Progress {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut thread.handle).poll(&mut context) {
            Poll::Ready(EndReason::Finished(_)) => {
                Progress::Done(thread.answer.lock().take().ok_or(Denial::OutOfMemory))
            }
            Poll::Ready(EndReason::Denied { why, .. }) => Progress::Done(Err(why)),
            // Nobody does that to a thread that the player asks for.
            Poll::Ready(EndReason::Raised(_) | EndReason::Killed | EndReason::OutOfMemory) => {
                Progress::Done(Err(Denial::OutOfMemory))
            }
            Poll::Pending => {
                let wait = thread.handle.thread().task().and_then(executor::TaskRef::wait);
                Progress::Parked(wait.map_or(WaitReason::Other, |(reason, _)| reason))
            }
        }
    }

    fn kill(&mut self, thread: Thread) {
        thread.handle.thread().kill();
    }
}

impl Machine {
    /// Looks whether each thread has ended or is at rest: how many there are at rest, and how often they were
    /// polled in all.
    fn look(&mut self) -> Option<(usize, u64)> {
        let mut polls = 0;
        let mut all_rest = true;
        self.threads.retain(|thread| {
            // Before its first poll it has no task.
            let Some(task) = thread.task() else {
                all_rest = false;
                return true;
            };
            if task.state() == TaskState::Done {
                return false;
            }
            polls += u64::from(task.polls());
            all_rest &= !thread.kill_requested() && task.wait().is_some_and(|(reason, _)| is_rest(reason));
            true
        });
        all_rest.then_some((self.threads.len(), polls))
    }
}

/// Whether a wait is for what only the next command can bring: not for other CPUs, nor for a point in time.
fn is_rest(reason: WaitReason) -> bool {
    !matches!(reason, WaitReason::Quarantine | WaitReason::Timer)
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.threads.iter().for_each(|thread| thread.kill());
    }
}
