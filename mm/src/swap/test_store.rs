//! A swap disk that does as it is told, for tests.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use executor::lock::SpinLock;

use super::{SwapRead, SwapStore, SwapWrite};
use crate::{PAGE_SIZE, PageError};

/// A request that is held back.
#[derive(Debug)]
enum Held {
    Read(SwapRead),
    /// With what the frames held when it came.
    Write(SwapWrite, Vec<Vec<u8>>),
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwapTransfer {
    /// Slots are written, or read.
    pub write: bool,
    /// The first slot.
    pub first: u64,
    /// How many.
    pub slots: usize,
}

/// A swap disk in memory. Requests complete at once, or in the order that the test wants; slots fail as it says. What is
/// written is what the frames held when the write came: so whoever changes them meanwhile is found out.
pub struct TestStore {
    slots: u64,
    inner: SpinLock<Inner>,
}

#[derive(Default)]
struct Inner {
    content: BTreeMap<u64, Vec<u8>>,
    holding: bool,
    held: Vec<Held>,
    asked: Vec<SwapTransfer>,
    /// Times that reads and writes of slots fail.
    failing_reads: usize,
    failing_writes: usize,
    failing_slots: BTreeMap<u64, usize>,
}

impl TestStore {
    /// A store with so many slots that can be used, whose requests complete at once.
    pub fn new(slots: u64) -> Arc<Self> {
        Arc::new(Self { slots: slots + 1, inner: SpinLock::new("test store", Inner::default()) })
    }

    /// From now on requests are held back.
    pub fn hold(&self) {
        self.inner.lock().holding = true;
    }

    /// Requests that are held back now.
    pub fn held(&self) -> usize {
        self.inner.lock().held.len()
    }

    /// Completes one of the requests that are held back, counted in order of their arrival; false when there is none.
    pub fn release(&self, number: usize) -> bool {
        let held = {
            let mut inner = self.inner.lock();
            (number < inner.held.len()).then(|| inner.held.remove(number))
        };
        held.map(|held| self.finish(held)).is_some()
    }

    /// Holds nothing back any more, and completes what was, in order.
    pub fn release_all(&self) {
        self.inner.lock().holding = false;
        while self.release(0) {}
    }

    /// Drops what is held back, unanswered.
    pub fn abandon_all(&self) {
        let held = core::mem::take(&mut self.inner.lock().held);
        drop(held);
    }

    /// The next `times` slots that are read fail.
    pub fn fail_reads(&self, times: usize) {
        self.inner.lock().failing_reads = times;
    }

    /// The next `times` slots that are written fail, and hold nothing.
    pub fn fail_writes(&self, times: usize) {
        self.inner.lock().failing_writes = times;
    }

    /// The next `times` reads and writes of one slot fail.
    pub fn fail_slot(&self, slot: u64, times: usize) {
        self.inner.lock().failing_slots.insert(slot, times);
    }

    /// What was asked for since the last such question, in order.
    pub fn take_asked(&self) -> Vec<SwapTransfer> {
        core::mem::take(&mut self.inner.lock().asked)
    }

    fn enter(&self, held: Held) {
        let now = {
            let mut inner = self.inner.lock();
            let (write, first, slots) = match &held {
                Held::Read(read) => (false, read.first(), read.len()),
                Held::Write(write, _) => (true, write.first(), write.len()),
            };
            inner.asked.push(SwapTransfer { write, first, slots });
            if inner.holding {
                inner.held.push(held);
                None
            } else {
                Some(held)
            }
        };
        if let Some(held) = now {
            self.finish(held);
        }
    }

    fn finish(&self, held: Held) {
        match held {
            Held::Read(mut read) => {
                let results: Vec<_> =
                    (0..read.len()).map(|number| self.read_slot(&mut read, number)).collect();
                read.complete(|number| results[number]);
            }
            Held::Write(write, content) => {
                let slots = (write.first()..).zip(content);
                let results: Vec<_> = slots.map(|(slot, content)| self.write_slot(slot, content)).collect();
                write.complete(|number| results[number]);
            }
        }
    }

    fn read_slot(&self, read: &mut SwapRead, number: usize) -> Result<(), PageError> {
        let slot = read.first() + number as u64;
        let mut inner = self.inner.lock();
        inner.fails(slot, false)?;
        // A slot that was never written holds rubbish.
        let content = inner.content.get(&slot).cloned().unwrap_or_else(|| vec![0xee; PAGE_SIZE]);
        drop(inner);
        read.fill(number, &content);
        Ok(())
    }

    fn write_slot(&self, slot: u64, content: Vec<u8>) -> Result<(), PageError> {
        let mut inner = self.inner.lock();
        let fails = inner.fails(slot, true);
        // One that could not be written holds rubbish, too.
        inner.content.insert(slot, if fails.is_ok() { content } else { vec![0xdd; PAGE_SIZE] });
        fails
    }
}

impl Inner {
    fn fails(&mut self, slot: u64, write: bool) -> Result<(), PageError> {
        let any = if write { &mut self.failing_writes } else { &mut self.failing_reads };
        let times = match self.failing_slots.get_mut(&slot) {
            Some(times) if *times > 0 => times,
            _ => any,
        };
        match times.checked_sub(1) {
            Some(rest) => {
                *times = rest;
                Err(PageError::Io)
            }
            None => Ok(()),
        }
    }
}

impl SwapStore for TestStore {
    fn slots(&self) -> u64 {
        self.slots
    }

    fn slots_at_once(&self) -> usize {
        32
    }

    fn read(&self, read: SwapRead) {
        self.enter(Held::Read(read));
    }

    fn write(&self, write: SwapWrite) {
        let content = (0..write.len()).map(|number| {
            let mut page = vec![0; PAGE_SIZE];
            write.read(number, &mut page);
            page
        });
        let content = content.collect();
        self.enter(Held::Write(write, content));
    }
}
