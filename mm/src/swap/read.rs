//! Reads: what a store gets that is to read slots in a row into frames.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use super::{SwapArea, count};
use crate::fallible::Shared;
use crate::transfer::Transfer;
use crate::{Frame, OutOfMemory, PAGE_SIZE, PageError, PhysAddr};

/// A page that is being read.
pub(crate) struct ReadPage {
    pub(crate) frame: Frame,
    pub(crate) load: Shared<Transfer>,
    /// Nobody has asked for it.
    pub(crate) ahead: bool,
}

/// The pages of one read.
pub(crate) struct Reading {
    /// The private memory, by its number.
    pub(crate) object: u32,
    /// The first page, and the first slot.
    pub(crate) index: u64,
    pub(crate) slot: u64,
    /// The first page, mostly the only one and the one that was asked for. Gone when the read has ended.
    asked: Option<ReadPage>,
    ahead: Vec<ReadPage>,
}

impl Reading {
    /// Memory for so many pages that are read along.
    pub(crate) fn try_room(ahead: usize) -> Result<Vec<ReadPage>, OutOfMemory> {
        let mut room = Vec::new();
        room.try_reserve_exact(ahead).map_err(|_| OutOfMemory)?;
        Ok(room)
    }

    /// A read of one page, with room for more.
    pub(crate) fn new(object: u32, index: u64, slot: u64, page: ReadPage, ahead: Vec<ReadPage>) -> Self {
        Self { object, index, slot, asked: Some(page), ahead }
    }

    /// Adds the next page, for which there is room.
    pub(crate) fn push(&mut self, page: ReadPage) {
        debug_assert!(self.ahead.len() < self.ahead.capacity());
        self.ahead.push(page);
    }

    /// What those wait for who wait for the first page.
    pub(crate) fn first_load(&self) -> Shared<Transfer> {
        self.page(0).load.clone()
    }

    /// How many pages are read.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.asked.is_some()) + self.ahead.len()
    }

    fn page(&self, number: usize) -> &ReadPage {
        match number.checked_sub(1) {
            None => self.asked.as_ref().expect("it has not ended"),
            Some(ahead) => &self.ahead[ahead],
        }
    }

    fn page_mut(&mut self, number: usize) -> &mut ReadPage {
        match number.checked_sub(1) {
            None => self.asked.as_mut().expect("it has not ended"),
            Some(ahead) => &mut self.ahead[ahead],
        }
    }
}

impl SwapArea {
    /// Hands a read to the store. With no lock held.
    pub(crate) fn read(&'static self, reading: Reading) {
        self.store.read(SwapRead { area: self, reading });
    }
}

/// A read of slots that follow each other, in the hands of a store. It owns the frames that are filled, and ends whether
/// or not anybody still waits.
///
/// Dropping it ends it with [`PageError::Abandoned`]. Neither that nor [`SwapRead::complete`] may be done by an interrupt
/// handler.
pub struct SwapRead {
    area: &'static SwapArea,
    reading: Reading,
}

impl SwapRead {
    /// The first slot.
    pub fn first(&self) -> u64 {
        self.reading.slot
    }

    /// How many slots are read, at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.reading.len()
    }

    /// Where the device is to write what the slot with this number holds, counted from the first.
    pub fn frame_address(&self, number: usize) -> PhysAddr {
        self.reading.page(number).frame.address()
    }

    /// Whether nobody has asked for the page of the slot with this number. Its error is nobody's.
    pub fn is_ahead(&self, number: usize) -> bool {
        self.reading.page(number).ahead
    }

    /// Fills the frame of the slot with this number, for stores that read by the processor.
    ///
    /// # Panics
    /// When `from` is no page.
    pub fn fill(&mut self, number: usize, from: &[u8]) {
        assert_eq!(from.len(), PAGE_SIZE);
        self.reading.page_mut(number).frame.as_bytes_mut().copy_from_slice(from);
    }

    /// Ends the read: `result` says of each slot, counted from the first, whether its frame holds it now. Everyone who
    /// waits is woken, those with an error whose page could not be read.
    pub fn complete(mut self, result: impl Fn(usize) -> Result<(), PageError>) {
        self.end(result);
    }

    fn end(&mut self, result: impl Fn(usize) -> Result<(), PageError>) {
        let (area, ended) = (self.area, self.reading.len());
        if ended == 0 {
            return;
        }
        let pages = self.reading.asked.take().into_iter().chain(core::mem::take(&mut self.reading.ahead));
        let object = area.memory.private_object(self.reading.object);
        for (number, page) in pages.enumerate() {
            let (index, slot) = (self.reading.index + number as u64, self.reading.slot + number as u64);
            let result = result(number);
            count(if result.is_ok() { &area.counters.pages_in } else { &area.counters.failed_in });
            area.counters.pages_ahead.fetch_add(page.ahead.into(), Ordering::Relaxed);
            let frame = result.map(|()| page.frame);
            match &object {
                Some(object) => object.end_swap_in(area, index, slot, frame.ok(), page.ahead),
                None => area.end_read(slot, None),
            }
            // Who waits for a page that nobody had asked for when its read began reads it again.
            page.load.settle(if page.ahead { Ok(()) } else { result });
        }
        area.memory.filling_ended(ended);
    }
}

impl Drop for SwapRead {
    fn drop(&mut self) {
        self.end(|_| Err(PageError::Abandoned));
    }
}

impl fmt::Debug for SwapRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwapRead({} slots from {})", self.len(), self.first())
    }
}
