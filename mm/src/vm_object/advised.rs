//! Pages that somebody will need soon, or not.

use alloc::sync::Arc;

use super::{Eviction, Keep, VmObject};
use crate::PageIndex;
use crate::page_state::PageState;
use crate::settle::Attempt;

impl VmObject {
    /// Begins to load a page that is not there, if there is a pager. Nobody waits for it; where memory is short, nothing
    /// happens.
    pub(crate) fn begin_to_load(self: &Arc<Self>, index: u64) {
        if self.pager.is_some() {
            drop(self.touch(index, false, &mut None, |_, _, _| Attempt::Done));
        }
    }

    /// Begins to drop a clean page, used lately or not. Answers its frame: after a wait for all CPUs, `end_eviction` takes
    /// it out, if nobody has touched it meanwhile.
    pub(crate) fn begin_to_drop(&self, index: u64) -> Option<u64> {
        let PageState::Loaded { frame } = self.state(PageIndex::new(index)) else { return None };
        (self.begin_eviction(index, frame, Keep::Nothing) == Eviction::Leaving).then_some(frame)
    }
}
