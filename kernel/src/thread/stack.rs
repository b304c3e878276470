//! Stacks of kernel threads: slots of one object, allocated page by page as they are touched.
//!
//! The lowest page of a slot is its guard: touching it is running over the end of the stack, and ends the
//! thread. A slot costs no memory until it is used, and gives everything back when the thread ends.

use alloc::{sync::Arc, vec::Vec};
use core::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
};

use conquer_once::spin::OnceCell;
use executor::{Builder, lock::SpinLock};
use mm::{PAGE_SIZE, PageIndex, Placement, Protection, VirtAddr, VmObject};

use crate::memory::{self, STACKS};

/// Pages of a slot, the guard page among them.
const SLOT_PAGES: u64 = 16;
const SLOT_SIZE: u64 = SLOT_PAGES * PAGE_SIZE as u64;
/// How many threads can have a stack at once: 2 GiB of addresses for each 32,768.
const SLOTS: u64 = 1 << 18;

static OBJECT: OnceCell<Arc<VmObject>> = OnceCell::uninit();
static FREE: SpinLock<FreeSlots> = SpinLock::new("stack slots", FreeSlots { used: Vec::new(), fresh: 0 });

struct FreeSlots {
    /// Slots that were used and given back.
    used: Vec<u32>,
    /// The first slot that was never used.
    fresh: u32,
}

pub(super) fn init() {
    let pages = SLOTS * SLOT_PAGES;
    let object = VmObject::zero(memory::memory(), pages);
    memory::kernel_space()
        .map(
            &object,
            PageIndex::new(0),
            pages,
            Protection::READ_WRITE,
            Placement::Fixed(VirtAddr::truncated(STACKS.start)),
        )
        .expect("the stacks' part of the kernel's space is free at boot");
    OBJECT.init_once(|| object);
}

/// A slot that belongs to a thread. Dropping it gives it and its pages back, once no CPU can use them any more.
pub(crate) struct Stack(u32);

impl Stack {
    /// A free slot; `None` when every one is taken or the list cannot grow.
    pub(super) fn allocate() -> Option<Self> {
        let mut free = FREE.lock();
        if let Some(slot) = free.used.pop() {
            return Some(Self(slot));
        }
        if u64::from(free.fresh) == SLOTS {
            return None;
        }
        free.fresh += 1;
        // Room for every slot that was ever handed out: `drop` must not fail.
        let missing = free.fresh as usize - free.used.len();
        if free.used.try_reserve(missing).is_err() {
            free.fresh -= 1;
            return None;
        }
        Some(Self(free.fresh - 1))
    }

    /// The address just above the stack, where it begins.
    pub(super) fn top(&self) -> u64 {
        STACKS.start + (u64::from(self.0) + 1) * SLOT_SIZE
    }
}

impl Stack {
    /// Gives the slot and its pages back. Done when nobody can use the old pages any more.
    ///
    /// # Cancellation
    /// The slot is not used again.
    pub(super) async fn give_back(self) {
        let slot = core::mem::ManuallyDrop::new(self).0;
        release(slot).await;
        FREE.lock().used.push(slot);
    }
}

/// Drops the pages of a slot. A CPU that remembers one of them would let the slot's next thread write to it without a
/// fault; so the slot is free only when this is done.
fn release(slot: u32) -> impl Future<Output = ()> + Send {
    let object = OBJECT.get().expect("stacks are prepared at boot");
    let first = PageIndex::new(u64::from(slot) * SLOT_PAGES);
    object.release(first..first + SLOT_PAGES)
}

impl Drop for Stack {
    fn drop(&mut self) {
        let slot = self.0;
        // A stack that was never used has no pages, and nothing to wait for.
        if pin!(release(slot)).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            FREE.lock().used.push(slot);
            return;
        }
        // Without memory for a task the slot, which is nothing but addresses, is not used again.
        drop(Builder::new().name("stack").try_spawn(async move {
            release(slot).await;
            FREE.lock().used.push(slot);
        }));
    }
}

/// What part of the stacks an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StackPart {
    /// No stack at all.
    None,
    /// A page that is allocated when it is touched.
    Usable,
    /// The page below a stack.
    Guard,
}

/// What part of the stacks `address` is in.
pub(crate) fn part(address: u64) -> StackPart {
    if !STACKS.contains(&address) {
        StackPart::None
    } else if (address - STACKS.start) % SLOT_SIZE < PAGE_SIZE as u64 {
        StackPart::Guard
    } else {
        StackPart::Usable
    }
}
