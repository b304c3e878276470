//! Large pages: where 2 MiB of private memory over zeros are written for the first time, they may get their frames in
//! one piece, and one entry of the tables shows them all.
//!
//! A fault asks for the piece with no lock held, clears it meanwhile, and looks again whether it still has its place.
//! If not, or if there is none, it is a fault of one page.

use alloc::sync::Arc;
use core::ops::Range;

use super::AddressSpace;
use super::fault::Fault;
use crate::address::PAGE_BYTES;
use crate::backing::Backing;
use crate::mapping::Mapping;
use crate::memory::LargePages;
use crate::private::{PrivateObject, VersionId};
use crate::{Advice, FrameRun, Memory, Protection, VirtAddr};

/// Pages of a large one.
const PAGES: u64 = FrameRun::LARGE as u64;
/// Bytes that are cleared before others get a turn.
const CLEARED: usize = 64 * PAGE_BYTES as usize;

/// Where a large page would be.
struct Piece {
    object: Arc<PrivateObject>,
    version: VersionId,
    /// Its pages of that.
    pages: Range<u64>,
    start: VirtAddr,
    protection: Protection,
    generation: u64,
}

impl Memory {
    /// Whether a mapping with this advice, which shows so many pages, is to have large pages.
    #[inline]
    fn wants_large(&self, pages: u64, advice: Advice) -> bool {
        pages >= PAGES
            && match self.large_pages() {
                LargePages::Always => advice != Advice::Random,
                LargePages::Advised => advice == Advice::Huge,
                LargePages::Never => false,
            }
    }

    /// 2 MiB in one piece, full of zeros, if there is one to spare.
    ///
    /// # Cancellation
    /// Dropping the future gives it back.
    pub(crate) async fn large_run(&'static self) -> Option<FrameRun> {
        let mut run = self.frames().try_alloc_large_spare()?;
        for bytes in run.as_bytes_mut().chunks_mut(CLEARED) {
            bytes.fill(0);
            executor::yield_now().await;
        }
        Some(run)
    }
}

impl AddressSpace {
    /// Whether a write to an address of a mapping may be answered by a large page: `has_room` says whether the tables
    /// have one.
    #[inline]
    pub(super) fn may_be_large(&self, mapping: &Mapping, has_room: impl FnOnce() -> bool) -> bool {
        self.memory.wants_large(mapping.pages, mapping.advice)
            && matches!(&mapping.shows, Backing::Private(object, _) if object.base().is_none() && !object.is_shared())
            && has_room()
    }

    /// Whether a large page is to be asked for, to answer a write.
    pub(super) fn wants_large_page(&self, fault: Fault) -> bool {
        let Some(piece) = self.piece(fault) else { return false };
        let has_room = self.table.tables.lock().has_room_for_large(piece.start);
        has_room && piece.object.has_none(piece.version, piece.pages)
    }

    /// Answers a write by a large page: true if that could be done. If not, nothing has changed.
    pub(super) fn enter_large(&self, fault: Fault, run: FrameRun) -> bool {
        let Some(piece) = self.piece(fault) else { return false };
        let Piece { object, version, pages, .. } = &piece;
        object.enter_large(*version, pages.clone(), run, |enter| self.commit_large(&piece, enter))
    }

    /// Where the large page would be that answers a fault.
    fn piece(&self, fault: Fault) -> Option<Piece> {
        let view = self.peek(fault).ok()?;
        let Backing::Private(object, version) = view.shows else { return None };
        let shown = view.pages.end - view.pages.start;
        if object.base().is_some() || object.is_shared() || !self.memory.wants_large(shown, view.advice) {
            return None;
        }
        let within = view.page.as_u64() / PAGE_BYTES % PAGES;
        let first = view.index.checked_sub(within).filter(|&first| first >= view.pages.start)?;
        (first + PAGES <= view.pages.end).then(|| Piece {
            object,
            version,
            pages: first..first + PAGES,
            start: VirtAddr::truncated(view.page.as_u64() - within * PAGE_BYTES),
            protection: view.protection,
            generation: view.generation,
        })
    }

    /// Shows a large page, if the mapping is still what it was and nothing is shown there. `enter` notes the pages, and
    /// says their first frame.
    fn commit_large(&self, piece: &Piece, enter: &mut dyn FnMut() -> u64) -> bool {
        let mut tables = self.table.tables.lock();
        let is_current = self.table.generation() == piece.generation;
        if !is_current || !matches!(tables.prepare_large(piece.start), Ok(true)) {
            return false;
        }
        let first = enter();
        if self.memory.is_recorded() {
            for page in 0..PAGES {
                let (at, writable) = (piece.start.page_add(page), piece.protection.write);
                self.memory.tell_map(self.table.root(), at, first + page, writable);
            }
        }
        tables.map_large(piece.start, first, piece.protection);
        true
    }
}
