//! 512 pages of a version at once.

use core::ops::Range;

use super::{Inner, PrivateObject, VersionId};
use crate::page_state::{PageEntry, PageState};
use crate::{Frame, FrameRun, PageEvent};

/// Pages that one node of the index has entries for.
const CHUNK: usize = 64;

impl PrivateObject {
    /// Whether a version shows zeros in all of these pages.
    pub(crate) fn has_none(&self, version: VersionId, pages: Range<u64>) -> bool {
        self.inner.lock().versions.has_none(version, &pages)
    }

    /// Gives a version 512 pages of its own that it showed as zeros: the frames of a run, all cleared. `commit` is told
    /// how to enter them, and shows them; it enters them or says no.
    ///
    /// False if one of them is there, or a CPU may remember one, or the heap is full; then nothing has changed, and the
    /// run is given back.
    pub(crate) fn enter_large(
        &self,
        version: VersionId,
        pages: Range<u64>,
        run: FrameRun,
        commit: impl FnOnce(&mut dyn FnMut() -> u64) -> bool,
    ) -> bool {
        let mut run = Some(run);
        let mut inner = self.inner.lock();
        let entered = inner.versions.has_none(version, &pages)
            && (self.memory.has_one_cpu() || !self.may_be_remembered())
            && self.memory.hardware().heap_has_room()
            && inner.make_room_for_all(version, &pages);
        let entered = entered
            && commit(&mut || {
                let run = run.take().expect("they are entered once");
                let first = inner.enter_run(version, pages.start, run);
                let listed = (first..).zip(pages.clone());
                listed.for_each(|(frame, index)| inner.swaps.list(self.memory, index, frame));
                first
            });
        if !entered {
            inner.give_up_room_for_all(version, &pages);
        }
        // A run that is left goes to the frame lists, whose lock comes later.
        entered
    }
}

impl Inner {
    fn make_room_for_all(&mut self, version: VersionId, pages: &Range<u64>) -> bool {
        let Some(own) = self.versions.own(version) else { return false };
        pages.clone().step_by(CHUNK).chain([pages.end - 1]).all(|index| own.make_room(index).is_ok())
    }

    fn give_up_room_for_all(&mut self, version: VersionId, pages: &Range<u64>) {
        for index in pages.clone().step_by(CHUNK).chain([pages.end - 1]) {
            self.give_up_room(version, index);
        }
    }

    fn enter_run(&mut self, version: VersionId, first: u64, run: FrameRun) -> u64 {
        let mut first_frame = None;
        for (index, frame) in (first..).zip(run.into_frames().map(Frame::into_number)) {
            first_frame.get_or_insert(frame);
            self.set(version, index, PageEvent::Write, PageEntry::new(PageState::Dirty { frame }));
        }
        first_frame.expect("a run is not empty")
    }
}
