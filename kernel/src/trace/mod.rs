//! A timeline of what faults go through: fixed-size records in a ring, off by default.
//!
//! Recording is one atomic increment and three stores, so it may be called from anywhere, also from an
//! interrupt handler; while it is off it is one load. CPUs record side by side, so records are put in order when
//! they are read, and one that another CPU has not finished by then is left out.

use alloc::vec::Vec;
use core::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::{clock, thread::ThreadId};

/// Records that are kept; older ones are overwritten.
const RECORDS: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// A thread trapped with a page fault. Subject: the thread.
    Trap,
    /// The thread was parked. Subject: the thread.
    Park,
    /// A page was requested from the device. Subject: the page.
    Request,
    /// A device interrupted. Subject: the vector.
    Interrupt,
    /// The device completed the request. Subject: the page.
    Complete,
    /// The thread's future was polled again. Subject: the thread.
    Wake,
    /// The page is mapped. Subject: the thread.
    Map,
    /// The thread goes on. Subject: the thread.
    Resume,
}

const EVENTS: [Event; 8] = [
    Event::Trap,
    Event::Park,
    Event::Request,
    Event::Interrupt,
    Event::Complete,
    Event::Wake,
    Event::Map,
    Event::Resume,
];

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// When, in ns since boot.
    pub time: u64,
    /// What.
    pub event: Event,
    /// Whose: see [`Event`].
    pub subject: u64,
}

struct Slot {
    time: AtomicU64,
    event_and_subject: AtomicU64,
}

static ON: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static RING: [Slot; RECORDS] =
    [const { Slot { time: AtomicU64::new(0), event_and_subject: AtomicU64::new(0) } }; RECORDS];

const EVENT_SHIFT: u32 = 56;

/// Begins a new timeline.
pub fn start() {
    RING.iter().for_each(|slot| slot.time.store(0, Relaxed));
    NEXT.store(0, Relaxed);
    ON.store(true, Release);
}

/// Ends the timeline and returns it, oldest first; what did not fit is missing at the beginning.
pub fn stop() -> Vec<Record> {
    ON.store(false, Release);
    let end = NEXT.load(Acquire);
    let mut records: Vec<Record> = (end.saturating_sub(RECORDS)..end)
        .filter_map(|index| {
            let slot = &RING[index % RECORDS];
            let time = slot.time.load(Acquire);
            let packed = slot.event_and_subject.load(Relaxed);
            (time != 0).then(|| Record {
                time,
                event: EVENTS[(packed >> EVENT_SHIFT) as usize],
                subject: packed & ((1 << EVENT_SHIFT) - 1),
            })
        })
        .collect();
    records.sort_by_key(|record| record.time);
    records
}

/// Whether events are recorded.
pub(crate) fn is_on() -> bool {
    ON.load(Relaxed)
}

fn record(event: Event, subject: u64) {
    if !is_on() {
        return;
    }
    let slot = &RING[NEXT.fetch_add(1, Relaxed) % RECORDS];
    slot.event_and_subject.store((event as u64) << EVENT_SHIFT | subject, Relaxed);
    slot.time.store(clock::now(), Release);
}

/// Records a thread's event.
pub(crate) fn thread(event: Event, thread: ThreadId) {
    record(event, thread.as_u64());
}

/// Records a page's event; `page` counts from the start of the device.
pub(crate) fn page(event: Event, page: u64) {
    record(event, page);
}

/// Records a device's interrupt.
pub(crate) fn interrupt(vector: u8) {
    record(Event::Interrupt, vector.into());
}
