//! What happens, as fixed-size records in a ring a CPU: off by default.
//!
//! While it is off, an event costs one load. While it is on, it is an atomic increment and some stores with interrupts
//! off: no lock, nothing allocated. So events may be recorded anywhere, also by interrupt handlers and with spin locks
//! held.
//!
//! The runner's `--trace` puts the rings into memory that it shares with the machine, and reads them while the machine
//! runs: nothing has to be sent, and what was recorded is there whatever ends the machine. The tour records its few
//! faults in the same rings, or in small ones of the heap.

pub mod layout;
mod ring;
mod tasks;

use alloc::{string::String, vec::Vec};
use core::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use conquer_once::spin::OnceCell;
use executor::lock::SpinLock;
use mm::{Memory, PageEvent, trace::Event, trace::PageWord};

pub use layout::{Kind, Record};

use crate::{arch::cpu, clock, cpus, memory, serial, thread::Thread};
use layout::Named;

/// Records of each ring of the heap.
const RECORDS: usize = 512;
/// Bytes of a name that one record has room for.
const NAME: usize = 32;

static RINGS: OnceCell<ring::Rings> = OnceCell::uninit();
/// Who records: [`SWITCH`], and the number of recordings under way. Nothing is recorded while it is 0.
static ON: AtomicU32 = AtomicU32::new(0);
/// The console, or the runner.
const SWITCH: u32 = 1 << 31;
/// Whether the runner reads the rings: then they are never off.
static SHARED: AtomicBool = AtomicBool::new(false);
/// Whether the log is told what happens in memory.
static LOGS_MEMORY: AtomicBool = AtomicBool::new(false);
/// The number of the next memory, and of the next device.
static MEMORIES: AtomicU16 = AtomicU16::new(1);
static DEVICES: AtomicU32 = AtomicU32::new(0);
/// What the first devices are called.
static DEVICE_NAMES: [OnceCell<String>; 16] = [const { OnceCell::uninit() }; 16];

/// A recording under way. Others go on when it ends, by [`Recording::stop`] or when it is dropped.
pub struct Recording {
    /// Where the rings ended when it began.
    places: Vec<u64>,
}

/// Begins a recording; `None` when there is no memory for the rings.
pub fn start() -> Option<Recording> {
    let places = places()?;
    ON.fetch_add(1, AcqRel);
    attend_to_memory();
    Some(Recording { places })
}

/// Where the rings end; `None` when there is no memory for them.
fn places() -> Option<Vec<u64>> {
    if RINGS.get().is_none() {
        let rings = ring::Rings::in_heap(cpus::online(), RECORDS)?;
        RINGS.init_once(|| rings);
    }
    Some(RINGS.get()?.places())
}

impl Recording {
    /// Ends it and returns what was recorded, oldest first; what did not fit is missing at the beginning. What was recorded
    /// before for somebody else is so still.
    pub fn stop(mut self) -> Vec<Record> {
        let places = core::mem::take(&mut self.places);
        drop(self);
        RINGS.get().map_or(Vec::new(), |rings| rings.since(&places))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        ON.fetch_sub(1, Release);
        attend_to_memory();
    }
}

/// Records from now on; false when there is no memory for the rings. From tasks and threads.
pub(crate) fn turn_on() -> bool {
    let is_on = places().is_some();
    if is_on {
        ON.fetch_or(SWITCH, AcqRel);
        tasks::watch();
    }
    attend_to_memory();
    is_on
}

/// Records nothing any more; what was recorded stays. False where the runner reads: then it goes on.
pub(crate) fn turn_off() -> bool {
    if !is_shared() {
        ON.fetch_and(!SWITCH, Release);
    }
    attend_to_memory();
    !is_shared()
}

/// The last records, at most `count`, oldest first.
pub(crate) fn last(count: usize) -> Vec<Record> {
    let Some(rings) = RINGS.get() else { return Vec::new() };
    let begin: Vec<u64> = rings.places().into_iter().map(|end| end.saturating_sub(count as u64)).collect();
    let mut records = rings.since(&begin);
    records.drain(..records.len().saturating_sub(count));
    records
}

/// Records everything from now on in memory that the runner reads. Once at boot, before the first task.
pub(crate) fn share(memory: &'static [core::sync::atomic::AtomicU64]) -> bool {
    let Some(rings) = ring::Rings::in_memory(memory) else { return false };
    RINGS.init_once(|| rings);
    SHARED.store(true, Relaxed);
    ON.fetch_or(SWITCH, Release);
    for code in 0..16 {
        name(Named::State, code, &alloc::format!("{}", PageWord::from_bits(code)));
    }
    for event in PageEvent::all() {
        name(Named::Event, event as u64, &alloc::format!("{event}"));
    }
    tasks::watch();
    true
}

/// Whether the runner reads what is recorded.
pub(crate) fn is_shared() -> bool {
    SHARED.load(Acquire)
}

/// What the log calls the module of events in memory.
pub(crate) const MM: &str = "mm";

/// From now on what happens in memory is told to the log, or is not.
pub(crate) fn tell_log(whether: bool) {
    LOGS_MEMORY.store(whether, Relaxed);
    attend_to_memory();
}

/// Makes memory tell what happens in it, if anybody wants to know.
fn attend_to_memory() {
    static ONE_AT_A_TIME: SpinLock<()> = SpinLock::new("who is told of memory", ());
    let _one = ONE_AT_A_TIME.lock();
    // Where the runner reads, it tells for good.
    if !is_shared() {
        memory::memory().record_as(u16::from(LOGS_MEMORY.load(Relaxed) || is_on()));
    }
}

/// A line of the log for an event in memory.
#[cold]
#[inline(never)]
fn log_memory(event: &Event) {
    match event {
        Event::State(change) => log::trace!(target: MM, "{change}"),
        other => log::trace!(target: MM, "{other:?}"),
    }
}

/// From now on what happens in this memory is recorded, if anything is.
pub(crate) fn watch(memory: &Memory) {
    if is_shared() {
        memory.record_as(MEMORIES.fetch_add(1, Relaxed));
    }
}

#[inline]
fn record(kind: Kind, detail: u8, words: [u64; 5]) {
    if is_on() {
        write(kind, detail, 0, words);
    }
}

#[cold]
#[inline(never)]
fn write(kind: Kind, detail: u8, memory: u16, words: [u64; 5]) {
    executor::lock::without_interrupts(|| {
        if let Some(rings) = RINGS.get() {
            let cpu = cpu::current().number() as u8;
            rings.write(Record { number: 0, time: clock::now(), kind, cpu, detail, memory, words });
        }
    });
}

fn name(of: Named, number: u64, name: &str) {
    if !is_on() {
        return;
    }
    write(Kind::Name, of as u8, 0, name_words(number, name.bytes()));
}

fn name_words(number: u64, name: impl Iterator<Item = u8>) -> [u64; 5] {
    let mut words = [number, 0, 0, 0, 0];
    for (index, byte) in name.take(NAME).enumerate() {
        words[1 + index / 8] |= u64::from(byte) << (index % 8 * 8);
    }
    words
}

/// Records what a thread does.
#[inline]
pub(crate) fn thread(kind: Kind, thread: &Thread) {
    record(kind, 0, [thread.id().as_u64(), 0, 0, 0, 0]);
}

/// Records that the CPU that calls has come up.
pub(crate) fn cpu_is_up(number: u32) {
    name(Named::Cpu, number.into(), "CPU");
}

/// Records what a thread is called.
pub(crate) fn name_thread(thread: &Thread) {
    name(Named::Thread, thread.id().as_u64(), thread.name());
}

/// Records a fault that parks its thread or may do so.
#[inline]
pub(crate) fn fault(thread: &Thread, access: u8, address: u64) {
    record(Kind::Trap, access, [thread.id().as_u64(), address, 0, 0, 0]);
}

/// Whether anything is recorded.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Relaxed) != 0
}

/// Records a fault that was resolved at once.
#[inline]
pub(crate) fn fault_at_once(thread: &Thread, access: u8, address: u64, since: u64) {
    record(Kind::AtOnce, access, [thread.id().as_u64(), address, since, 0, 0]);
}

/// A number for a device, which is recorded with its name.
pub(crate) fn device(device_name: &str) -> u32 {
    let number = DEVICES.fetch_add(1, Relaxed);
    name(Named::Device, number.into(), device_name);
    if let Some(place) = DEVICE_NAMES.get(number as usize) {
        place.init_once(|| String::from(device_name));
    }
    number
}

/// What a device of that number is called, if it is one of the first 16.
pub(crate) fn device_name(number: u64) -> Option<&'static str> {
    let name = DEVICE_NAMES.get(usize::try_from(number).ok()?)?.get()?;
    Some(name.as_str())
}

/// Records that pages are requested from a device, to be stored or loaded.
pub(crate) fn request(device: u32, store: bool, first: u64, pages: u64) {
    record(Kind::Request, u8::from(store), [device.into(), first, pages, 0, 0]);
}

/// Records that a request is over.
pub(crate) fn complete(device: u32, failed: bool, first: u64) {
    record(Kind::Complete, u8::from(failed), [device.into(), first, 0, 0, 0]);
}

/// Records a device's interrupt, but for those of the serial ports where the runner does not read.
#[inline]
pub(crate) fn interrupt(vector: u8) {
    // What is printed would leave no room for anything else in small rings.
    if !SHARED.load(Relaxed) && serial::is_interrupt(vector) {
        return;
    }
    record(Kind::Interrupt, vector, [0; 5]);
}

/// Records what has happened in a memory.
pub(crate) fn memory(memory: u16, event: &Event) {
    if log::log_enabled!(target: MM, log::Level::Trace) {
        log_memory(event);
    }
    if !is_on() {
        return;
    }
    let (kind, detail, words) = match *event {
        Event::State(change) => {
            let (object, page) = (change.object.to_bits(), change.page.as_u64());
            let words = [object, page, change.from.to_bits(), change.to.to_bits(), 0];
            (Kind::State, change.event as u8, words)
        }
        Event::Made(object, pager) => {
            let words = name_words(object.to_bits(), pager.as_bytes().iter().copied());
            (Kind::Name, Named::Pager as u8, words)
        }
        Event::Request { object, store, first, pages } => {
            (Kind::Asked, u8::from(store), [object.to_bits(), first.as_u64(), pages, 0, 0])
        }
        Event::Complete { object, store, page, failed } => {
            let detail = u8::from(store) | u8::from(failed) << 1;
            (Kind::Answered, detail, [object.to_bits(), page.as_u64(), 0, 0, 0])
        }
        Event::Ended(object) => (Kind::Ended, 0, [object.to_bits(), 0, 0, 0, 0]),
        Event::Map { root, page, frame, writable } => {
            (Kind::Enter, u8::from(writable), [root.as_u64(), page.as_u64(), frame, 0, 0])
        }
        Event::ShootdownBegin(number) => (Kind::ShootdownBegin, 0, [number, 0, 0, 0, 0]),
        Event::ShootdownEnd(number) => (Kind::ShootdownEnd, 0, [number, 0, 0, 0, 0]),
        Event::Evict { object, page } => (Kind::Evict, 0, [object.to_bits(), page.as_u64(), 0, 0, 0]),
    };
    write(kind, detail, memory, words);
}
