//! Forking: a second space that shows what the first shows now.
//!
//! What is private goes to the past, which both see, and neither can change: see `private/versions`. Then the tables of
//! the first space lose the right to write to it. Until all CPUs have forgotten that right, whoever wants a page of that
//! past for writing waits; so the fork itself may be polled or dropped at any time.

use alloc::sync::Arc;
use core::ops::Range;

use super::AddressSpace;
use crate::backing::Backing;
use crate::frame::Moment;
use crate::mapping::Mapping;
use crate::{MapError, OutOfMemory, PageTable, VirtAddr};

impl AddressSpace {
    /// A space that shows in `table`, which is empty, what this one shows now: shared objects as they are, and its own
    /// copies of what is private, whose pages are copied when one of the two writes. The time taken grows with the
    /// number of mappings, whatever they show. What is being unmapped is left out.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full; this space is as it was.
    ///
    /// # Panics
    /// When this is the kernel's space and has private memory: the kernel cannot fault at will.
    ///
    /// # Cancellation
    /// Dropping the future drops the new space. This one is as it was.
    pub async fn fork(&self, table: PageTable) -> Result<Arc<Self>, OutOfMemory> {
        let (twin, moment) = self.make_twin(table)?;
        self.memory.forgotten(moment).await;
        Ok(twin)
    }

    /// The twin, and since when what both see cannot be written. In one go: those who wait for this CPU wait for it.
    fn make_twin(&self, table: PageTable) -> Result<(Arc<Self>, Moment), OutOfMemory> {
        let mut twin = Self::try_new(self.memory, table, self.range())?;
        let number = self.memory.number_mapping();
        let mappings = self.mappings.lock();
        let made = Arc::get_mut(&mut twin).ok_or(OutOfMemory).and_then(|twin| {
            mappings
                .all()
                .filter(|mapping| mapping.going.is_none())
                .try_for_each(|mapping| twin.copy(mapping, number))
        });
        // Also after an error: some may be forked.
        let private = || mappings.all().filter(|mapping| mapping.shows.is_copied());
        self.write_protect(private().map(|mapping| mapping.start..mapping.end()));
        let moment = self.memory.frames().moment();
        // What is being unmapped was not forked, and the end of its version may have come before its own.
        for mapping in private().filter(|mapping| mapping.going.is_none()) {
            if let Backing::Private(object, version) = &mapping.shows {
                object.settle(*version, number, moment);
            }
        }
        drop(mappings);
        made.map(|()| (twin, moment))
    }

    /// Takes the right to write from the pages in these ranges, and perhaps from others, which get it back by faults.
    /// Also where a mapping allows no writing: somebody may be just about to take that right out of the tables.
    fn write_protect(&self, ranges: impl Iterator<Item = Range<VirtAddr>>) {
        let mut tables = self.table.tables.lock();
        let mut taken = false;
        for range in ranges {
            taken |= tables.write_protect(range).expect("private memory is mapped in a lower half");
        }
        if taken {
            self.memory.hardware().forget_space(self.table.root());
        }
    }

    /// Shows what a mapping of another space shows.
    fn copy(&mut self, mapping: &Mapping, number: u64) -> Result<(), OutOfMemory> {
        let shows = match &mapping.shows {
            Backing::Shared(_) | Backing::Manual(_) => mapping.shows.clone(),
            Backing::Private(object, _) if object.is_shared() => mapping.shows.clone(),
            Backing::Private(object, version) => {
                Backing::Private(object.clone(), object.fork(*version, number)?)
            }
        };
        let copy = Mapping { id: self.memory.number_mapping(), shows, ..mapping.clone() };
        let noted = self.note(copy.clone());
        if noted.is_err()
            && let Backing::Private(object, version) = &copy.shows
        {
            object.end_unused(*version);
        }
        noted
    }

    fn note(&mut self, mapping: Mapping) -> Result<(), OutOfMemory> {
        let mappings = self.mappings.get_mut();
        let (room, rooms) = (mappings.room()?, mapping.shows.rooms()?);
        match mapping.shows.note(rooms, &mapping, &self.table) {
            Ok(()) => mappings.insert(room, mapping),
            Err(MapError::BeyondObject) => unreachable!("the mapping was noted before"),
            Err(_) => return Err(OutOfMemory),
        }
        Ok(())
    }
}
