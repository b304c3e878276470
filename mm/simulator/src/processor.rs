//! What CPUs remember of page tables.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mm::trace::{Checker, Event};
use mm::{Hardware, PhysAddr, VirtAddr};

/// What the processor remembers of one page.
#[derive(Clone, Copy)]
pub(crate) struct Remembered {
    pub(crate) frame: u64,
    pub(crate) rights: u64,
    /// Whether it is a part of a large page, which the processor forgets as a whole.
    pub(crate) large: bool,
}

/// Bytes of a large page, and of what a table of level 1 is for.
pub(crate) const LARGE_PAGE: u64 = 2 << 20;

/// The processor: it forgets a page when it is told to, or when it faults on it. All threads are the same one,
/// unless the machine has several CPUs: then each CPU of the executor has its own memory.
#[derive(Default)]
pub struct Processor {
    /// Whether each CPU has a memory of its own.
    pub(crate) several: bool,
    pub(crate) tlbs: Mutex<HashMap<u32, Tlb>>,
    /// How many times a CPU was told to forget a page.
    pub invalidations: AtomicU64,
    /// The heap has no room for faults any more.
    pub heap_is_short: AtomicBool,
    /// Follows all that happens to pages.
    pub(crate) checker: Mutex<Option<Checker>>,
    /// What was told since somebody asked last, if somebody does.
    pub(crate) kept: Mutex<Option<Vec<Event>>>,
}

thread_local! {
    static CHECKING: Cell<bool> = const { Cell::new(false) };
    static DRAWING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is checking an event now: what that takes from the heap, no test limits or counts.
pub fn is_checking() -> bool {
    CHECKING.get()
}

/// Whether this thread takes from what the heap keeps for those who write pages out.
pub fn is_drawing() -> bool {
    DRAWING.get()
}

/// What one CPU remembers.
#[derive(Default)]
pub(crate) struct Tlb {
    pub(crate) pages: HashMap<(PhysAddr, u64), Remembered>,
    /// The tables of level 1, by the 2 MiB that they are for, with the rights that the levels above give.
    pub(crate) tables: HashMap<(PhysAddr, u64), Remembered>,
    /// How many times all CPUs were waited for, when it last forgot everything between two polls.
    pub(crate) shootdowns: u64,
}

impl Processor {
    /// From now on each change of a page's state is looked up in the table of states and events.
    pub(crate) fn check_from_the_start(&self) {
        *self.checker.lock().unwrap() = Some(Checker::from_the_start());
    }

    /// From now on what is told is kept.
    pub fn keep_events(&self) {
        *self.kept.lock().unwrap() = Some(Vec::new());
    }

    /// What was told since [`keep_events`](Self::keep_events), or the last such call.
    pub fn take_events(&self) -> Vec<Event> {
        self.kept.lock().unwrap().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many changes were looked up.
    pub fn changes(&self) -> u64 {
        self.checker.lock().unwrap().as_ref().map_or(0, Checker::changes)
    }

    pub(crate) fn cpu(&self) -> u32 {
        if self.several { executor::current_cpu() } else { 0 }
    }

    pub(crate) fn with_tlb<T>(&self, f: impl FnOnce(&mut Tlb) -> T) -> T {
        f(self.tlbs.lock().unwrap().entry(self.cpu()).or_default())
    }
}

impl Tlb {
    pub(crate) fn forget(&mut self) {
        self.pages.clear();
        self.tables.clear();
    }
}

impl Hardware for Processor {
    fn invalidate(&self, root: PhysAddr, page: VirtAddr) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        self.with_tlb(|tlb| {
            let page = page.as_u64();
            let large = |at: u64, known: &Remembered| known.large && (at ^ page) < LARGE_PAGE;
            tlb.pages.retain(|&(of, at), known| of != root || at != page && !large(at, known));
            tlb.tables.clear();
        });
    }

    fn forget(&self) {
        if self.several {
            self.with_tlb(Tlb::forget);
        }
    }

    fn forget_space(&self, root: PhysAddr) {
        // A CPU that remembers nothing takes no memory for that.
        if let Some(tlb) = self.tlbs.lock().unwrap().get_mut(&self.cpu()) {
            tlb.pages.retain(|(of, _), _| *of != root);
            tlb.tables.retain(|(of, _), _| *of != root);
        }
    }

    fn with_reserve(&self, f: &mut dyn FnMut()) {
        DRAWING.set(true);
        f();
        DRAWING.set(false);
    }

    /// # Panics
    /// At the first change that cannot have happened.
    fn record(&self, memory: u16, event: &Event) {
        CHECKING.set(true);
        if let Some(kept) = &mut *self.kept.lock().unwrap() {
            kept.push(*event);
        }
        let mut checker = self.checker.lock().unwrap();
        let followed = checker.as_mut().map_or(Ok(()), |checker| checker.follow(memory, event));
        if followed.is_err() {
            // What follows from it says nothing more.
            *checker = None;
        }
        drop(checker);
        CHECKING.set(false);
        if let Err(impossible) = followed {
            panic!("{impossible}");
        }
    }

    fn heap_has_room(&self) -> bool {
        !self.heap_is_short.load(Ordering::Relaxed)
    }
}
