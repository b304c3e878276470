//! `threads`: what a parked thread costs.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use executor::{TaskState, time::Instant};
use mm::{PAGE_SIZE, PageIndex, Protection, VmObject};

use super::super::{
    Command, CommandError,
    held_pager::HeldPager,
    output::say,
    room::{drop_pages, make_room},
    units::{Bytes, Time},
};
use crate::{
    heap, memory,
    thread::{self, EndReason, ThreadHandle},
    window::Window,
};

const MAX_THREADS: u64 = 200_000;
/// Frames that the next thread may take: its stack, a page table, and the heap's growth.
const FRAMES_PER_THREAD: usize = 66;
/// Threads whose ends are looked at before others get a turn.
const BATCH: usize = 64;

pub(super) static THREADS: Command = Command {
    name: "threads",
    usage: "N",
    help: "parks N threads in page faults, and says what each costs",
    run: |mut arguments| {
        Box::pin(async move {
            let count = arguments.needed_number("N", 1, MAX_THREADS)?;
            arguments.end()?;
            run(count as usize).await
        })
    },
};

/// Memory in use, in bytes.
#[derive(Clone, Copy)]
struct Usage {
    /// Allocated from the heap.
    heap: usize,
    /// In frames that are not the heap's: stacks, page tables, pages.
    frames: usize,
}

impl Usage {
    fn now() -> Self {
        // What is kept for tasks to come is in nobody's use.
        executor::release_kept_memory();
        let (frames, heap) = (memory::memory().frames().stats(), heap::stats());
        Self { heap: heap.used, frames: (frames.total - frames.free) * PAGE_SIZE - heap.claimed }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            heap: self.heap.saturating_sub(earlier.heap),
            frames: self.frames.saturating_sub(earlier.frames),
        }
    }
}

/// What the threads read.
#[derive(Default)]
struct Seen {
    right: AtomicU64,
    wrong: AtomicU64,
    refused: AtomicU64,
}

/// The object that the threads read, each a page of its own, and what they found.
struct Field {
    window: Window,
    seen: Seen,
}

async fn run(count: usize) -> Result<u8, CommandError> {
    let before = Usage::now();
    let no_memory = || CommandError::Failed(alloc::format!("there is no memory for {count} threads"));
    let pager = HeldPager::new(count).ok_or_else(no_memory)?;
    let mut handles = Vec::new();
    handles.try_reserve_exact(count).map_err(|_| no_memory())?;
    let object = VmObject::try_new(memory::memory(), pager.clone(), count as u64)
        .map_err(|mm::OutOfMemory| no_memory())?;
    let window = Window::map(object.clone(), count * PAGE_SIZE, Protection::READ)
        .map_err(|why| CommandError::Failed(alloc::format!("the pages cannot be mapped: {why}")))?;
    let field = Arc::new(Field { window, seen: Seen::default() });

    let began = Instant::now();
    let failure = park(count, &field, &mut handles).await;
    let parked = pager.held();
    let took = Time(began.elapsed().as_nanos() as u64);
    let cost = Usage::now().since(before);
    say!("{parked} threads are parked in page faults, after {took}");
    if parked > 0 {
        let Usage { heap, frames } = cost;
        let (both, each) = (heap + frames, |bytes: usize| bytes.div_ceil(parked));
        say!("each takes {} bytes without its stack: {} of heap", each(heap), Bytes(heap as u64));
        say!("each takes {} bytes with its stack: {} of heap and frames", each(both), Bytes(both as u64));
    }

    let began = Instant::now();
    pager.release().await;
    let mut ended = 0;
    for (number, handle) in handles.into_iter().enumerate() {
        if number % BATCH == 0 {
            executor::yield_now().await;
        }
        match handle.await {
            EndReason::Finished(_) => {}
            end => {
                ended += 1;
                say!("error: a thread was {end}");
            }
        }
    }
    let took = Time(began.elapsed().as_nanos() as u64);
    let Seen { right, wrong, refused } = &field.seen;
    let (right, wrong, refused) = (right.load(Relaxed), wrong.load(Relaxed), refused.load(Relaxed));
    say!("all went on within {took}: {right} read the right page, {wrong} a wrong one, {refused} none");
    drop_pages(object).await;
    if let Ok(field) = Arc::try_unwrap(field).map_err(drop) {
        field.window.unmap().await;
    }
    let left = Usage::now().since(before);
    say!("{} of heap stay with lists that have grown", Bytes(left.heap as u64));
    match failure {
        Some(why) => Err(CommandError::Failed(why)),
        None if right != count as u64 || ended > 0 => {
            Err(CommandError::Failed("not every thread read what it should".to_string()))
        }
        None => Ok(0),
    }
}

/// Starts the threads and lets each run until it is parked. Returns why they are fewer than they should be.
async fn park(count: usize, field: &Arc<Field>, handles: &mut Vec<ThreadHandle>) -> Option<String> {
    let mut failure = None;
    for page in 0..count {
        if make_room(FRAMES_PER_THREAD).await.is_err() {
            failure = Some(alloc::format!("there is memory for {page} threads only"));
            break;
        }
        let field = field.clone();
        match thread::spawn("parked", move || read(&field, page)) {
            Ok(handle) => handles.push(handle),
            Err(why) => {
                failure = Some(alloc::format!("after {page} threads, {why}"));
                break;
            }
        }
        executor::yield_now().await;
    }
    // Whoever is ready runs between the looks; when nobody is, everybody is parked.
    for handle in &*handles {
        while handle.thread().task().is_none_or(|task| matches!(task.state(), TaskState::Ready)) {
            executor::yield_now().await;
        }
    }
    failure
}

/// What each thread does. It touches no more than the topmost page of its stack before it is parked: no
/// lock, no allocation, no formatting.
fn read(field: &Field, page: usize) {
    let mut word = [0; 8];
    let result = field.window.read_at(page * PAGE_SIZE, &mut word);
    let counter = match result {
        Ok(()) if u64::from_le_bytes(word) == HeldPager::word(PageIndex::new(page as u64)) => {
            &field.seen.right
        }
        Ok(()) => &field.seen.wrong,
        Err(_) => &field.seen.refused,
    };
    counter.fetch_add(1, Relaxed);
}
