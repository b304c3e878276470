//! The machine below `vmscript`'s player: the simulated one, with the executor's tasks as its threads.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex};

use executor::JoinHandle;
use executor::host::run_until_idle;
use mm::{Denial, Memory, OutOfMemory, PageTable};
use vmscript::{Job, Player, Progress, TABLE_FRAMES};

use crate::Machine;

/// A simulated machine that scenarios are played on. What it starts are tasks of the calling thread, one after the other.
#[derive(Default)]
pub struct Host {
    machine: Option<&'static Machine>,
}

/// A thread of a scenario.
pub struct Thread {
    task: JoinHandle<()>,
    result: Arc<Mutex<Option<Result<u64, Denial>>>>,
}

impl vmscript::Machine for Host {
    type Thread = Thread;

    fn memory(&mut self, frames: usize) -> Option<&'static Memory> {
        let machine = Machine::with_table_frames(frames, TABLE_FRAMES);
        self.machine = Some(machine);
        Some(machine.memory)
    }

    fn empty_table(&mut self) -> Result<PageTable, OutOfMemory> {
        self.machine.ok_or(OutOfMemory)?.try_empty_table()
    }

    fn start(&mut self, job: Job) -> Result<Thread, OutOfMemory> {
        let machine = self.machine.ok_or(OutOfMemory)?;
        let result = Arc::new(Mutex::new(None));
        let to = result.clone();
        let task = executor::spawn(async move {
            let result = match job {
                Job::Read(space, address) => machine.read(&space, address.as_u64()).await,
                Job::Write(space, address, value) => {
                    machine.write(&space, address.as_u64(), value).await.map(|()| 0)
                }
                Job::Work(work) => {
                    work.await;
                    Ok(0)
                }
            };
            *to.lock().unwrap() = Some(result);
        });
        Ok(Thread { task, result })
    }

    fn settle(&mut self) {
        run_until_idle();
    }

    fn progress(&mut self, thread: &mut Thread) -> Progress {
        if let Some(result) = thread.result.lock().unwrap().take() {
            return Progress::Done(result);
        }
        let reason = thread.task.task().wait().map(|(reason, _)| reason);
        Progress::Parked(reason.unwrap_or(executor::WaitReason::Other))
    }

    fn kill(&mut self, thread: Thread) {
        thread.task.abort();
    }
}

/// Plays a scenario, and says whether any line was wrong.
///
/// # Errors
/// What reading or writing says.
pub fn play(script: impl BufRead, mut to: impl Write) -> io::Result<bool> {
    let mut player = Player::new(Host::default());
    for line in script.split(b'\n') {
        let mut told = Ok(());
        player.play(&line?, |answer| {
            if told.is_ok() {
                told = writeln!(to, "{answer}");
            }
        });
        told?;
    }
    to.flush()?;
    Ok(player.was_wrong())
}
