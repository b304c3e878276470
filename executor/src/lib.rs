//! Tasks, wakers, timers, wait queues and what is built on them, for a kernel written around futures.
#![no_std]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

mod arch;
mod atomic;
pub mod cpu;
#[cfg(not(target_os = "none"))]
pub mod host;
mod list;
pub mod lock;
pub mod platform;
mod reason;
mod run;
mod run_queue;
pub mod sync;
mod task;
pub mod time;
mod wait_queue;

pub use cpu::{CpuLocal, current_cpu};
#[cfg(target_os = "none")]
pub use platform::init;
pub use platform::{Platform, alarm_fired};
pub use reason::{WaitReason, waits_for};
pub use run::{has_ready_thread, has_work, poll_one, run};
pub use task::{
    AbortHandle, Builder, Class, JoinError, JoinHandle, SpawnError, TaskId, TaskRef, TaskState, Tasks,
    YieldNow, current_task, live_tasks, spawn, tasks, try_for_each_task, yield_now,
};
pub use wait_queue::{Wait, WaitFor, WaitQueue};
