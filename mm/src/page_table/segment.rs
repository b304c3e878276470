//! Segments: ranges that show physical memory which nobody here owns, by the largest pages that fit.
//!
//! Each change is made in two steps (see `step`). The first adds what tables it takes and splits what pages it cuts,
//! which changes nothing that can be seen; it may run out of frames, and then leaves what it has made for the next
//! try. The second cannot fail.

use core::ops::{ControlFlow, Range};

use super::step::Segment;
use super::{Found, PageTable, Part};
use crate::address::PAGE_BYTES;
use crate::page_entry::{ADDRESS, GLOBAL, PRESENT, RIGHTS, ROOT_LEVEL, is_leaf, rights, type_bits};
use crate::{MapError, MemoryType, PhysAddr, Protection, VirtAddr};

impl PageTable {
    /// Shows physical memory from `physical` on in a range. Where it is shown there already, it gets these rights and
    /// this memory type. Whatever was shown there before, all CPUs have forgotten: who unmapped it has waited. Where
    /// rights or types change, this CPU forgets them; the others forget when the caller waits for them.
    ///
    /// Not from interrupt handlers.
    ///
    /// # Errors
    /// `Unaligned`, `Empty`; `OutOfRange` if the range is not in these tables' half, or the processor has no such
    /// physical addresses; `Overlap` if another frame is shown there, `Permanent` if it is shown for good; `Unreadable`
    /// for a protection that does not allow reading; `NoMemory` without frames for tables. Then nothing is shown
    /// that was not, tables made so far stay, and the next try gets further.
    pub fn map_segment(
        &mut self,
        range: Range<VirtAddr>,
        physical: PhysAddr,
        protection: Protection,
        memory_type: MemoryType,
    ) -> Result<(), MapError> {
        let part = self.check(&range)?;
        if !physical.as_u64().is_multiple_of(PAGE_BYTES) {
            return Err(MapError::Unaligned);
        }
        if physical.as_u64().checked_add(part.last - part.first).is_none_or(|last| last > ADDRESS | 0xfff) {
            return Err(MapError::OutOfRange);
        }
        let segment = Segment {
            distance: physical.as_u64().wrapping_sub(part.first),
            bits: PRESENT | readable(protection)? | type_bits(memory_type),
            largest: self.memory.hardware().largest_page().level(),
        };
        self.check_pages(part, |start, shown| {
            if shown.wrapping_sub(start) == segment.distance { Ok(()) } else { Err(MapError::Overlap) }
        })?;
        self.prepare(self.root, None, ROOT_LEVEL, part, &|piece, level, value| {
            segment.fits(piece, level, value)
        })?;
        self.enter(self.root, None, ROOT_LEVEL, part, &segment);
        Ok(())
    }

    /// Takes all pages of a range out, and the tables that are empty without them; where nothing is, nothing happens.
    /// This CPU forgets them; the others forget when the caller waits for them. Not from interrupt handlers.
    ///
    /// # Errors
    /// `Unaligned`, `Empty`, `OutOfRange`, `Permanent`; `NoMemory` if a large page has to be split and there is no
    /// frame. Nothing is changed then.
    pub fn unmap_segment(&mut self, range: Range<VirtAddr>) -> Result<(), MapError> {
        let part = self.check(&range)?;
        self.check_pages(part, |_, _| Ok(()))?;
        self.split_at_ends(part)?;
        self.take_out(self.root, None, ROOT_LEVEL, part);
        Ok(())
    }

    /// Changes what may be done with the pages of a range that are there. This CPU forgets them; the others forget
    /// when the caller waits for them. Not from interrupt handlers.
    ///
    /// # Errors
    /// As of [`unmap_segment`](Self::unmap_segment), and `Unreadable`.
    pub fn protect_segment(
        &mut self,
        range: Range<VirtAddr>,
        protection: Protection,
    ) -> Result<(), MapError> {
        let part = self.check(&range)?;
        let rights = readable(protection)?;
        self.check_pages(part, |_, _| Ok(()))?;
        self.split_at_ends(part)?;
        self.change(self.root, ROOT_LEVEL, part, RIGHTS, rights);
        Ok(())
    }

    /// Makes the pages of a range permanent: they can never be unmapped, nor their rights be changed. A processor keeps
    /// such translations when it forgets everything else, on its way between address spaces and in a shootdown; so
    /// nothing else may be marked like that. Only in the upper half. Not from interrupt handlers.
    ///
    /// # Errors
    /// `Unaligned`, `Empty`, `OutOfRange`; `NoMemory` as of [`unmap_segment`](Self::unmap_segment).
    pub fn make_permanent(&mut self, range: Range<VirtAddr>) -> Result<(), MapError> {
        let part = self.check(&range)?;
        if !self.kernel {
            return Err(MapError::OutOfRange);
        }
        self.split_at_ends(part)?;
        self.change(self.root, ROOT_LEVEL, part, 0, GLOBAL);
        Ok(())
    }

    /// Adds all tables that pages of 4 KiB in a range take: so entering them needs no frame, until some page beneath a
    /// table is taken out and leaves it empty. Not from interrupt handlers.
    ///
    /// # Errors
    /// `Unaligned`, `Empty`, `OutOfRange`; `NoMemory` without frames: what was added stays.
    pub fn add_tables(&mut self, range: Range<VirtAddr>) -> Result<(), MapError> {
        let part = self.check(&range)?;
        let is_page = |_, level, value| value & PRESENT != 0 && is_leaf(value, level);
        Ok(self.prepare(self.root, None, ROOT_LEVEL, part, &is_page)?)
    }

    /// Checks each page of a part, told its first address and the physical one; none is permanent.
    fn check_pages(
        &self,
        part: Part,
        mut check: impl FnMut(u64, u64) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        let end = self.visit_part(part, &mut |visit| match visit.found {
            Found::Page(page) if page.permanent => ControlFlow::Break(MapError::Permanent),
            Found::Page(page) => match check(visit.start.as_u64(), page.address.as_u64()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => ControlFlow::Break(why),
            },
            Found::Hole | Found::Table { .. } => ControlFlow::Continue(()),
        });
        end.break_value().map_or(Ok(()), Err)
    }
}

fn readable(protection: Protection) -> Result<u64, MapError> {
    if protection.read { Ok(rights(protection)) } else { Err(MapError::Unreadable) }
}
