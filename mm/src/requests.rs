//! Requests for pages that follow each other: what a pager gets that can do them by one turn of its device.
//!
//! Each of them stays a request of its own: it has its own frame, so the frames of all are the scatter list; it
//! ends by itself, with its own error; and dropping it abandons its page alone. Nothing waits for the others.

use alloc::vec::{IntoIter, Vec};

use crate::{OutOfMemory, PAGE_SIZE, PageError, PageIndex, PageRequest, StoreRequest};

/// One or more requests for pages that follow each other, in order.
#[derive(Debug)]
pub struct Requests<R> {
    all: Vec<R>,
}

impl<R> Requests<R> {
    /// One request alone, for a pager that keeps ranges.
    ///
    /// # Errors
    /// The request, when the heap is full.
    pub fn try_from_one(request: R) -> Result<Self, R> {
        match Self::try_with_room(1) {
            Ok(mut one) => {
                one.push(request);
                Ok(one)
            }
            Err(OutOfMemory) => Err(request),
        }
    }

    /// Room for so many requests. The first is added before anybody sees it.
    pub(crate) fn try_with_room(requests: usize) -> Result<Self, OutOfMemory> {
        let mut all = Vec::new();
        all.try_reserve_exact(requests).map_err(|_| OutOfMemory)?;
        Ok(Self { all })
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.all.len() < self.all.capacity()
    }

    /// Adds the request of the next page, for which there is room.
    pub(crate) fn push(&mut self, request: R) {
        debug_assert!(self.has_room());
        self.all.push(request);
    }

    /// How many pages are wanted, at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The requests, in order.
    pub fn as_slice(&self) -> &[R] {
        &self.all
    }

    /// The requests, to be given their frames.
    pub fn as_mut_slice(&mut self) -> &mut [R] {
        &mut self.all
    }

    /// Leaves the first `pages` requests here and answers the others, if there are any.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full; then nothing has changed.
    ///
    /// # Panics
    /// When `pages` is 0.
    pub fn split_off(&mut self, pages: usize) -> Result<Option<Self>, OutOfMemory> {
        assert!(pages > 0, "something is left");
        if self.all.len() <= pages {
            return Ok(None);
        }
        let mut rest = Vec::new();
        rest.try_reserve_exact(self.all.len() - pages).map_err(|_| OutOfMemory)?;
        rest.extend(self.all.drain(pages..));
        Ok(Some(Self { all: rest }))
    }

    /// Drops all but the first `pages` requests, which so end as abandoned.
    ///
    /// # Panics
    /// When `pages` is 0.
    pub fn truncate(&mut self, pages: usize) {
        assert!(pages > 0, "something is left");
        self.all.truncate(pages);
    }
}

impl<R> IntoIterator for Requests<R> {
    type Item = R;
    type IntoIter = IntoIter<R>;

    fn into_iter(self) -> IntoIter<R> {
        self.all.into_iter()
    }
}

impl Requests<PageRequest> {
    /// The first page that is wanted.
    pub fn first(&self) -> PageIndex {
        self.all[0].index()
    }

    /// Ends all loads when the first `bytes` bytes have arrived: pages that are there in whole are loaded, the others
    /// fail with `rest`.
    pub fn complete(mut self, bytes: usize, rest: PageError) {
        let arrived = (bytes / PAGE_SIZE).min(self.all.len());
        let missing = self.all.drain(arrived..);
        missing.for_each(|request| request.complete(Err(rest)));
        PageRequest::complete_all(&mut self.all);
    }
}

impl Requests<StoreRequest> {
    /// The first page that is written.
    pub fn first(&self) -> PageIndex {
        self.all[0].index()
    }

    /// Ends all stores when the first `bytes` bytes have been written: pages that are there in whole are stored, the
    /// others fail with `rest`.
    pub fn complete(self, bytes: usize, rest: PageError) {
        for (number, request) in self.all.into_iter().enumerate() {
            let written = bytes / PAGE_SIZE > number;
            request.complete(if written { Ok(()) } else { Err(rest) });
        }
    }
}
