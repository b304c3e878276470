//! Placing a program in an address space. Nothing is loaded: pages come when they are touched.

use core::ops::Range;

use mm::{AddressSpace, MapError, PAGE_SIZE, PageIndex, Placement, Protection, VirtAddr};

use super::{
    elf::{Image, Segment},
    file::File,
};
use crate::memory::USER;

const PAGE: u64 = PAGE_SIZE as u64;

/// How large a stack may grow, in bytes.
const STACK_BYTES: u64 = 8 << 20;
/// What stays unmapped below it, in bytes, so that running over its end touches nothing else.
const GUARD_BYTES: u64 = 1 << 20;

/// The stack, at the top of what a program may have.
const STACK: Range<u64> = USER.end - STACK_BYTES..USER.end;
/// What is below it.
pub(super) const GUARD: Range<u64> = STACK.start - GUARD_BYTES..STACK.start;
/// Where a program's own segments may be.
pub(super) const SEGMENTS: Range<u64> = USER.start..GUARD.start;

/// A fresh page of zeros is what Linux would hand over with no arguments, no environment and no auxiliary
/// values: a count and three ends of lists. The stack pointer stands before them, aligned as calls want it.
pub(super) const STACK_POINTER: u64 = STACK.end - 64;

/// Maps the segments of `image` and a stack, which grows when it is touched.
///
/// # Errors
/// When there is no memory, or something does not fit, which a checked image in an empty space does.
pub(super) fn map(space: &AddressSpace, file: &File, image: &Image) -> Result<(), MapError> {
    for segment in image.segments() {
        map_segment(space, file, segment)?;
    }
    let room = VirtAddr::truncated(STACK.start)..VirtAddr::truncated(STACK.end);
    space.set_stack(room, 1, Protection::READ_WRITE.for_user())
}

fn map_segment(space: &AddressSpace, file: &File, segment: &Segment) -> Result<(), MapError> {
    let protection =
        Protection { read: segment.read, write: segment.write, execute: segment.execute, user: true };
    let at = Placement::Fixed(VirtAddr::truncated(segment.start));
    if segment.write || segment.zeros {
        let bytes = segment.pages * PAGE;
        space.map_part(file.object(), segment.file_offset, segment.file_bytes, bytes, protection, at)?;
    } else {
        // Pages that are the same for all who run the program.
        let first = PageIndex::new(segment.file_offset / PAGE);
        space.map(file.object(), first, segment.pages, protection, at)?;
    }
    Ok(())
}
