//! Placing a program in an address space. Nothing is loaded: pages come when they are touched.

use core::ops::Range;

use mm::{AddressSpace, MapError, PAGE_SIZE, PageIndex, Placement, Protection, VirtAddr, VmObject};

use super::{
    elf::{Image, Segment},
    file::File,
};
use crate::memory::{self, USER};

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

/// Maps the segments of `image` and a stack.
///
/// # Errors
/// When there is no memory, or something does not fit, which a checked image in an empty space does.
pub(super) fn map(space: &AddressSpace, file: &File, image: &Image) -> Result<(), MapError> {
    for segment in image.segments() {
        map_segment(space, file, segment)?;
    }
    let stack = VmObject::try_zero(memory::memory(), STACK_BYTES / PAGE)?;
    let at = Placement::Fixed(VirtAddr::truncated(STACK.start));
    let protection = Protection::READ_WRITE.for_user();
    space.map(&stack, PageIndex::new(0), STACK_BYTES / PAGE, protection, at)?;
    Ok(())
}

fn map_segment(space: &AddressSpace, file: &File, segment: &Segment) -> Result<(), MapError> {
    let protection =
        Protection { read: segment.read, write: segment.write, execute: segment.execute, user: true };
    let at = |page: u64| Placement::Fixed(VirtAddr::truncated(segment.start + page * PAGE));
    let from_file = segment.file_bytes.div_ceil(PAGE);
    if from_file > 0 {
        let (object, first) = if segment.write || segment.zeros {
            (&file.copy(segment.file_offset, segment.file_bytes)?, 0)
        } else {
            (file.object(), segment.file_offset / PAGE)
        };
        space.map(object, PageIndex::new(first), from_file, protection, at(0))?;
    }
    let zeros = segment.pages - from_file;
    if zeros > 0 {
        let object = VmObject::try_zero(memory::memory(), zeros)?;
        space.map(&object, PageIndex::new(0), zeros, protection, at(from_file))?;
    }
    Ok(())
}
