//! Ends of the whole machine. What the host expects to read stands in its table.

use executor::{lock::SpinLock, sync::Notify};
use kernel::{memory::memory, thread, window::Window};
use mm::{PAGE_SIZE, Protection, VmObject};

use crate::{
    check::{Failure, Needed, Outcome},
    wild,
};

static GUARDED: SpinLock<u64> = SpinLock::new("test guard", 0);

/// Where nothing is mapped, in the kernel's window.
const NOWHERE: u64 = 0xffff_c123_4567_8000;

/// A thread touches memory that is not there while it holds a spin lock.
pub(crate) async fn fault_with_a_guard_held() -> Outcome {
    holds_the_guard(|| wild::touch(NOWHERE)).await
}

/// A thread waits while it holds a spin lock.
pub(crate) async fn wait_with_a_guard_held() -> Outcome {
    holds_the_guard(|| {
        let never = Notify::new();
        thread::block_on(never.notified());
    })
    .await
}

async fn holds_the_guard(mut act: impl FnMut() + Send + 'static) -> Outcome {
    let handle = thread::spawn("guard holder", move || {
        let mut guard = GUARDED.lock();
        act();
        *guard += 1;
    });
    let end = handle.needed("a thread could not be started")?.await;
    Err(Failure::new(alloc::format!("the thread was {end}, and the machine goes on")))
}

/// A task touches memory that is not there.
pub(crate) async fn fault_in_a_task() -> Outcome {
    let task = executor::Builder::new().name("careless").spawn(async { wild::read(NOWHERE) });
    task.await.needed("the careless task")?;
    Err(Failure::new("the machine goes on".into()))
}

/// A thread touches a page whose table is not where the tables say: who answers that fault faults.
pub(crate) async fn fault_while_a_fault_is_answered() -> Outcome {
    let object = VmObject::try_zero(memory(), 2).needed("an object")?;
    let window = Window::map(object, 2 * PAGE_SIZE, Protection::READ_WRITE).needed("a place")?;
    let handle = thread::spawn("unlucky", move || {
        let start = window.start().as_u64();
        wild::touch(start);
        wild::lose_table_of(start);
        touch_the_next_page(start);
    });
    let end = handle.needed("a thread could not be started")?.await;
    Err(Failure::new(alloc::format!("the thread was {end}, and the machine goes on")))
}

#[inline(never)]
fn touch_the_next_page(start: u64) {
    wild::touch(start + PAGE_SIZE as u64);
}

/// A thread's own code panics, some calls deep, while others are parked.
pub(crate) async fn panic_in_a_thread() -> Outcome {
    let never = alloc::sync::Arc::new(Notify::new());
    let mut crew = crate::crew::Crew::default();
    for _ in 0..3 {
        let never = never.clone();
        crew.add("patient", move || thread::block_on(never.notified()))?;
    }
    crew.all_wait_for(executor::WaitReason::Notify).await?;
    let handle = thread::spawn("desperate", || give_up_after(core::hint::black_box(3)));
    let end = handle.needed("a thread could not be started")?.await;
    Err(Failure::new(alloc::format!("the thread was {end}, and the machine goes on")))
}

#[inline(never)]
fn give_up_after(calls: u32) {
    match calls {
        0 => panic!("this is too much"),
        calls => give_up_after(calls - 1),
    }
    core::hint::black_box(calls);
}

/// The machine resets without a word.
pub(crate) async fn triple_fault() -> Outcome {
    wild::triple_fault();
    Err(Failure::new("the machine goes on".into()))
}

/// The machine neither ends nor says anything.
pub(crate) async fn silence() -> Outcome {
    core::future::pending().await
}
