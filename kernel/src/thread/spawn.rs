//! How threads begin.

use alloc::{boxed::Box, sync::Arc};
use core::{
    cell::UnsafeCell,
    fmt,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    task::{Context as TaskContext, Poll},
};

use conquer_once::spin::OnceCell;
use executor::{Builder, Class, JoinHandle};
use mm::{AddressSpace, OutOfMemory};

use super::{
    Counters, EndReason, Entry, THREADS, Thread, ThreadId,
    call::{self, Call},
    current,
    run::run,
    stack::Stack,
};
use crate::{
    arch::{
        context::Context,
        gdt::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA},
    },
    heap,
};

static NEXT_ID: AtomicU32 = AtomicU32::new(1);

/// Why a thread could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnError {
    /// Every stack is taken.
    NoStack,
    /// There is no memory for its record.
    NoMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoStack => "every thread stack is taken",
            Self::NoMemory => "no memory for another thread",
        })
    }
}

impl core::error::Error for SpawnError {}

/// A thread that was spawned: a future of the reason for its end.
///
/// # Cancellation
/// Dropping the handle detaches the thread, which goes on.
pub struct ThreadHandle {
    thread: Arc<Thread>,
    end: JoinHandle<EndReason>,
}

impl ThreadHandle {
    /// The thread.
    pub fn thread(&self) -> &Arc<Thread> {
        &self.thread
    }
}

impl Future for ThreadHandle {
    type Output = EndReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<EndReason> {
        // A thread's task is not aborted while the thread lives; if it were, that is a kill.
        Pin::new(&mut self.end).poll(context).map(|end| end.unwrap_or(EndReason::Killed))
    }
}

/// Starts a kernel thread that calls `entry` once, on a stack of its own (60 KiB, allocated as it is
/// touched). May be called from tasks and threads, not from interrupt handlers.
///
/// What `entry` captured belongs to the thread's record, and is dropped when the thread has ended, however
/// that came; what it has put on its stack is lost when it is ended in the middle.
///
/// # Errors
/// When there is no stack or no memory for it.
pub fn spawn(name: &'static str, entry: impl FnMut() + Send + 'static) -> Result<ThreadHandle, SpawnError> {
    spawn_kernel(name, None, Builder::new(), entry)
}

/// Starts a kernel thread that stays on the CPU of the caller, in the space of its lower half, if it is given one; else as
/// [`spawn`]. What the space maps without the right of ring 3 it may read and write, and parks as in the window.
///
/// A kill may end a thread with a space at any fault, so it owns nothing but what `entry` captured. One that does not fault
/// runs on.
///
/// # Errors
/// When there is no stack or no memory for it.
pub fn spawn_here(
    name: &'static str,
    space: Option<Arc<AddressSpace>>,
    entry: impl FnMut() + Send + 'static,
) -> Result<ThreadHandle, SpawnError> {
    spawn_kernel(name, space, Builder::new().cpu(executor::current_cpu()), entry)
}

fn spawn_kernel(
    name: &'static str,
    space: Option<Arc<AddressSpace>>,
    builder: Builder,
    entry: impl FnMut() + Send + 'static,
) -> Result<ThreadHandle, SpawnError> {
    heap::has_room().map_err(|OutOfMemory| SpawnError::NoMemory)?;
    let stack = Stack::allocate().ok_or(SpawnError::NoStack)?;
    let context = Context {
        rip: first_instruction as *const () as u64,
        cs: KERNEL_CODE,
        rflags: Context::INTERRUPTS_ON | 1 << 1,
        // As if `first_instruction` had been called: its return address would stand here.
        rsp: stack.top() - 8,
        ss: KERNEL_DATA,
        ..Context::default()
    };
    start(name, context, space, builder, Some(Box::new(entry)), Some(stack))
}

/// Starts a thread of ring 3 in `space`, at `rip` with stack pointer `rsp`; both are addresses of the lower
/// half. May be called from tasks and threads, not from interrupt handlers.
///
/// # Errors
/// When there is no memory for it.
pub fn spawn_user(
    name: &'static str,
    space: Arc<AddressSpace>,
    rip: mm::VirtAddr,
    rsp: u64,
) -> Result<ThreadHandle, SpawnError> {
    let context = Context {
        rip: rip.as_u64(),
        cs: USER_CODE,
        rflags: Context::INTERRUPTS_ON | 1 << 1,
        rsp,
        ss: USER_DATA,
        ..Context::default()
    };
    start(name, context, Some(space), Builder::new(), None, None)
}

fn start(
    name: &'static str,
    context: Context,
    space: Option<Arc<AddressSpace>>,
    builder: Builder,
    entry: Option<Entry>,
    stack: Option<Stack>,
) -> Result<ThreadHandle, SpawnError> {
    heap::has_room().map_err(|OutOfMemory| SpawnError::NoMemory)?;
    let thread = Arc::new(Thread {
        id: ThreadId(NEXT_ID.fetch_add(1, Relaxed)),
        name,
        context: UnsafeCell::new(context),
        fpu: UnsafeCell::new(None),
        space,
        entry: UnsafeCell::new(entry),
        begun: AtomicBool::new(false),
        refused: UnsafeCell::new(None),
        task: OnceCell::uninit(),
        kill: AtomicBool::new(false),
        gives_way: AtomicBool::new(false),
        counters: Counters::default(),
    });
    THREADS.lock().insert(thread.id(), Arc::downgrade(&thread));
    let end = builder.name(name).class(Class::Thread).try_spawn(run(thread.clone(), stack));
    match end {
        Ok(end) => Ok(ThreadHandle { thread, end }),
        Err(_) => {
            THREADS.lock().remove(&thread.id());
            Err(SpawnError::NoMemory)
        }
    }
}

/// Where a kernel thread begins. Touches no more than the topmost page of its stack before `entry` does.
extern "C" fn first_instruction() -> ! {
    if let Some(thread) = current() {
        thread.run_entry();
    }
    call::call(Call::Exit);
    unreachable!("a thread that has ended is not entered again")
}
