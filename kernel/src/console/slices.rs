//! A range of bytes, cut into slices for several threads.

use alloc::vec::Vec;
use core::ops::Range;

use mm::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// Cuts `bytes` at page boundaries into at most `count` slices of about the same number of pages, none of
/// them empty; `None` when there is no memory for so many.
pub(super) fn cut(bytes: &Range<u64>, count: u64) -> Option<Vec<Range<u64>>> {
    let (first, end) = (bytes.start / PAGE, bytes.end.div_ceil(PAGE));
    let pages = end.saturating_sub(first);
    let count = count.min(pages);
    // The first slices take the pages that are left over.
    let boundary = |slice: u64| (first + slice * (pages / count) + slice.min(pages % count)) * PAGE;
    let mut slices = Vec::new();
    slices.try_reserve_exact(count as usize).ok()?;
    slices
        .extend((0..count).map(|slice| boundary(slice).max(bytes.start)..boundary(slice + 1).min(bytes.end)));
    Some(slices)
}

/// How many pages have at least one of these bytes.
pub(super) fn pages(bytes: &Range<u64>) -> u64 {
    match bytes.is_empty() {
        true => 0,
        false => bytes.end.div_ceil(PAGE) - bytes.start / PAGE,
    }
}
