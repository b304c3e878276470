//! What is handed to pagers, told on the way.

use crate::trace::{Event, ObjectName};
use crate::{PageIndex, PageRequest, Pager, Requests, StoreRequest, VmObject};

/// An object's pager, as the object asks it: what it is asked for is told. Whatever is handed to a pager goes this way.
pub(crate) struct Asked<'a> {
    object: &'a VmObject,
    pager: &'a dyn Pager,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(object: &'a VmObject, pager: &'a dyn Pager) -> Self {
        Self { object, pager }
    }

    pub(crate) fn load(&self, request: PageRequest) {
        self.tell(false, request.index(), 1);
        self.pager.load(request);
    }

    pub(crate) fn load_range(&self, requests: Requests<PageRequest>) {
        self.tell(false, requests.first(), requests.len());
        self.pager.load_range(requests);
    }

    pub(crate) fn store(&self, request: StoreRequest) {
        self.tell(true, request.index(), 1);
        self.pager.store(request);
    }

    pub(crate) fn store_range(&self, requests: Requests<StoreRequest>) {
        self.tell(true, requests.first(), requests.len());
        self.pager.store_range(requests);
    }

    #[inline]
    fn tell(&self, store: bool, first: PageIndex, pages: usize) {
        if self.object.memory().is_recorded() {
            let object = self.object.trace_name();
            self.object.memory().record(Event::Request { object, store, first, pages: pages as u64 });
        }
    }
}

impl VmObject {
    /// What events call it.
    pub(super) fn trace_name(&self) -> ObjectName {
        ObjectName::object(self.number())
    }

    /// The pager is done with a page.
    #[inline]
    pub(crate) fn tell_end(&self, store: bool, page: PageIndex, failed: bool) {
        if self.memory().is_recorded() {
            self.memory().record(Event::Complete { object: self.trace_name(), store, page, failed });
        }
    }
}
