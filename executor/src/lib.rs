//! Tasks, wakers, timers, wait queues and what is built on them, for a kernel written around futures.
//!
//! Every CPU has a run loop ([`run()`]) that polls the tasks woken on it, in the order in which they were woken. A
//! waiting task costs its memory and nothing else: nothing polls, and without a timer that is due the CPU sleeps.
//!
//! # Principles
//! - **One allocation a task**: a header of 64 bytes, then the future, later its output in the same place. Waits,
//!   sleeps and wakes allocate nothing: their entries are part of the futures.
//! - **A wake by reference is one atomic OR, and a push if the task waited; one by value gives its reference back in the
//!   same step, by compare-and-swap.** It takes no lock, frees nothing, and may come from anywhere.
//! - **Everything may be dropped at any time.** Each public future says under *Cancellation* what that does.
//! - **Every wait has a reason** ([`WaitReason`]) and a beginning, for `ps`: [`tasks`], [`TaskRef::wait`].
//! - **Timers are never early.**
//!
//! # What may be called from where
//! | from | what |
//! | --- | --- |
//! | anywhere, also interrupt handlers | `Waker` (all of it), [`TaskRef`] and [`AbortHandle`] (all of them but printing), [`sync::Signal::signal`], [`sync::AtomicWaker::wake`], [`time::now`], [`current_cpu`], [`current_task`], [`is_only_cpu`], [`has_work`], [`lock::without_interrupts`] |
//! | timer interrupt handler | [`alarm_fired`] |
//! | tasks and kernel threads, with interrupts on or off | everything but [`run()`] and [`poll_one`] |
//! | panic report | [`try_for_each_task`], [`lock::held_guard`], [`current_task`] |
//!
//! A kernel thread is a task of class [`Class::Thread`] whose poll takes long: the thread runs inside it, may be
//! preempted anywhere, and may call what tasks call. So nothing here believes which CPU it is on, except with
//! interrupts off; every spin lock touches the stack that it needs before they go off; and the run loop's own
//! queues are touched by nobody else.
//!
//! # On the host
//! The whole crate runs on the host, where each thread is a CPU with a clock of its own, real or simulated: see
//! [`host`].
//!
//! # How it is tested
//! `cargo test -p executor`: each part against its specification, the wait queue and the timers against models in
//! random programs, and wakes from a signal handler at random instructions.
//! `RUSTFLAGS="--cfg loom" cargo test -p executor --release --test models`: the protocols of wakes, joins, aborts,
//! queues and channels in every order of their steps.
//! `RUSTFLAGS="--cfg loom --cfg shuttle" cargo test -p executor --release --test scenarios`: several CPUs, tasks and
//! cancellations in random orders.
//!
//! # A round of waits
//! ```
//! use executor::sync::{Mutex, Signal};
//! use executor::time::{Duration, sleep};
//! use executor::{WaitReason, spawn};
//!
//! // An interrupt handler calls `KEY.signal()`.
//! static KEY: Signal = Signal::new(WaitReason::Keyboard);
//!
//! executor::host::block_on(async {
//!     let shared = std::sync::Arc::new(Mutex::new(0));
//!     let counter = std::sync::Arc::clone(&shared);
//!     let task = spawn(async move {
//!         KEY.wait().await;
//!         *counter.lock().await += 1;
//!     });
//!     sleep(Duration::from_millis(1)).await;
//!     KEY.signal();
//!     task.await.unwrap();
//!     assert_eq!(*shared.lock().await, 1);
//! });
//! ```
#![no_std]

extern crate alloc;
// Scenarios are models, with another crate in loom's place. `--cfg shuttle` goes with `--cfg loom`.
#[cfg(shuttle)]
extern crate shuttle as loom;
#[cfg(not(target_os = "none"))]
extern crate std;

mod arch;
mod atomic;
pub mod cpu;
mod grace;
mod hooks;
#[cfg(not(any(target_os = "none", loom)))]
pub mod host;
#[cfg(loom)]
#[path = "host_model.rs"]
pub mod host;
mod idle;
mod list;
pub mod lock;
mod order;
pub mod platform;
mod reason;
mod run;
mod run_queue;
mod steal;
pub mod sync;
mod task;
pub mod time;
mod wait_queue;
mod waiter;

/// The examples in the documentation are compiled, and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/executor.md")]
#[doc = include_str!("../../docs/waits.md")]
struct Documented;

pub use cpu::{CpuLocal, cpus, current_cpu, is_only_cpu};
pub use grace::grace_period;
pub use hooks::{Hooks, install_hooks};
pub use order::{Order, set_order};
#[cfg(target_os = "none")]
pub use platform::init;
pub use platform::{Platform, alarm_fired};
pub use reason::{WaitReason, waits_for};
pub use run::{has_new_work, has_ready_thread, has_work, poll_one, run};
pub use task::{
    AbortHandle, Builder, Class, JoinError, JoinHandle, JoinSet, SpawnError, Spent, TaskId, TaskRef,
    TaskState, YieldNow, current_task, live_tasks, release_kept_memory, spawn, spawn_pinned, tasks,
    try_for_each_task, yield_now,
};
pub use wait_queue::{Wait, WaitFor, WaitQueue};
