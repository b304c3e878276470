//! A base and its overlays: one pager, so what one of them writes changes what the others may believe of the page.
//!
//! A base knows its overlays, and which of their pages are with the pager.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | store of a page, store of the same page by another of them | one after the other: the second waits for the first's end, and looks again |
//! | store of an overlay's page, load of the base's | what a load under way brings is thrown away, and none begins before the store's end: who wants the page waits for that, and so sees all of what is stored or nothing |
//! | store of an overlay's page, the base's clean page | shown until the store's end, and dropped then, as an invalidation does: whoever looks next loads what was stored |
//! | store of an overlay's page, the base's dirty page | it stays. If it was stored before, it counts as written since: the pager has something else now |
//! | store by the base or an overlay, page of another overlay that was stored before | counts as written since, so that no mark folds it before it is stored again |
//! | store by the base or an overlay, fold of another overlay's page | no fold before the store's end, and then as above |
//! | store that fails | the same, as nobody knows what the pager has; but the base's clean page stays |
//! | store, end of an overlay | the request keeps the overlay until the end |
//!
//! Others are told at a store's end, before a mark may look at the page again.

use super::{Inner, VmObject};
use crate::PageEvent;
use crate::fallible::Shared;
use crate::frame::Moment;
use crate::page_state::{PageEntry, PageState};
use crate::transfer::Transfer;

impl VmObject {
    /// The base of an overlay, or the object itself.
    pub(super) fn family(&self) -> &Self {
        self.base.as_deref().unwrap_or(self)
    }

    /// The pager has something new of a page, by a store of this object's: what the overlays of the same base have of it
    /// is not what the pager has. With no lock held.
    pub(super) fn tell_overlays(&self, index: u64) {
        self.family().each_overlay(|overlay| {
            if overlay.number != self.number {
                overlay.inner.lock().overwritten(index);
            }
        });
    }

    /// Of a base: calls with itself and each overlay, with no lock held.
    pub(super) fn each_of_family(&self, mut each: impl FnMut(&Self)) {
        each(self);
        self.each_overlay(each);
    }

    fn each_overlay(&self, mut each: impl FnMut(&Self)) {
        let mut next = Some(0);
        while let Some(from) = next {
            let found = self.inner.lock().overlays.at_or_after(&from).map(|(number, ())| number);
            let Some(number) = found else { return };
            if let Some(overlay) = self.memory.object(number) {
                each(&overlay);
            }
            next = number.checked_add(1);
        }
    }

    /// A store of an overlay's page has ended, `stored` or not; this is its base, whose clean page is not what was
    /// stored. Says since when all CPUs are to be waited for, if it had one.
    pub(super) fn end_store_above(&self, index: u64, stored: bool) -> Option<Moment> {
        let mut inner = self.inner.lock();
        let above = &mut inner.above;
        let place = above.iter().position(|store| store.page().as_u64() == index);
        let store = place.map(|place| above.swap_remove(place));
        let mut moment = None;
        if let PageState::Loaded { frame } = inner.pages.get(index).state()
            && stored
        {
            let (entry, since) = self.drop_present(&mut inner, index, frame);
            inner.pages.set(index, PageEvent::Drop, entry);
            moment = since;
        } else {
            inner.overwritten(index);
        }
        drop(inner);
        drop(store);
        moment
    }
}

impl Inner {
    /// Of a base: the store of a page by an overlay.
    pub(super) fn store_above(&self, index: u64) -> Option<&Shared<Transfer>> {
        self.above.iter().find(|store| store.page().as_u64() == index)
    }

    /// Of a base: the store of a page, by itself or by an overlay.
    pub(super) fn store_under_way(&self, index: u64) -> Option<&Shared<Transfer>> {
        match self.pages.get(index).state() {
            PageState::WritingBack { .. } | PageState::WritingBackDiscarded { .. } => {
                self.pages.transfer(index)
            }
            _ => self.store_above(index),
        }
    }

    /// Of a base: an overlay's store of a page is with the pager from now on. There is room to note it.
    pub(super) fn begin_store_above(&mut self, store: Shared<Transfer>) {
        let index = store.page().as_u64();
        self.above.push(store);
        if self.pages.get(index).state() == PageState::Loading {
            self.pages.set(index, PageEvent::Drop, PageEntry::new(PageState::LoadingInvalidated));
        }
    }

    /// Somebody else has stored a page: what was stored of it before is in the pager no more.
    fn overwritten(&mut self, index: u64) {
        let entry = self.pages.get(index);
        if entry.is_stored() && matches!(entry.state(), PageState::Dirty { .. }) {
            self.pages.set(index, PageEvent::Overwritten, entry.written());
        }
    }
}
