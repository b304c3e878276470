//! Touching whole ranges: faulting their pages in, and asking which are there.

use core::fmt;
use core::ops::Range;

use executor::time::{Instant, timeout_at};

use super::AddressSpace;
use super::mappings::distance;
use crate::address::PAGE_BYTES;
use crate::backing::Backing;
use crate::{Access, Denial, Fault, FaultOutcome, MapError, VirtAddr};

/// Pages that are touched before others get a turn.
const BATCH: u64 = 64;

/// Why the pages of a range are not all there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchError {
    /// It is no range of this space: `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`.
    Range(MapError),
    /// A page could not be had.
    Denied {
        /// The first such page.
        page: VirtAddr,
        /// Why not.
        why: Denial,
    },
    /// The deadline came first.
    TimeIsOver {
        /// The first page that was not there then.
        page: VirtAddr,
    },
}

impl fmt::Display for TouchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TouchError::Range(why) => why.fmt(f),
            TouchError::Denied { page, why } => write!(f, "page {page} cannot be had: {why}"),
            TouchError::TimeIsOver { page } => write!(f, "page {page} did not come in time"),
        }
    }
}

impl From<MapError> for TouchError {
    fn from(why: MapError) -> Self {
        TouchError::Range(why)
    }
}

impl AddressSpace {
    /// Makes all pages of a range accessible as an access by a program would, one after the other: by ring 3 in the lower
    /// half. What is done may be taken away again at any time, as after any fault.
    ///
    /// With a deadline, a page that is not there by then is not waited for. Pages that need no wait are touched also
    /// after it.
    ///
    /// # Errors
    /// See [`TouchError`]; the pages before the one that it names were touched.
    ///
    /// # Cancellation
    /// Dropping the future leaves pages as they are, and loads to themselves.
    pub async fn touch(
        &self,
        range: Range<VirtAddr>,
        access: Access,
        deadline: Option<Instant>,
    ) -> Result<(), TouchError> {
        self.touch_each(range, |_| access, deadline).await
    }

    /// The same for what was just mapped, with no access in mind: pages of objects that are mapped shared are read,
    /// all others written where that is allowed, so that no later access has to make them. This is how a mapping is
    /// eager: `map`, then `populate`.
    ///
    /// # Errors
    /// As for [`touch`](Self::touch). What was mapped stays: who does not want a part unmaps the whole.
    ///
    /// # Cancellation
    /// As for `touch`.
    pub async fn populate(
        &self,
        range: Range<VirtAddr>,
        deadline: Option<Instant>,
    ) -> Result<(), TouchError> {
        self.touch_each(range, |page| self.strongest_access(page), deadline).await
    }

    async fn touch_each(
        &self,
        range: Range<VirtAddr>,
        access: impl Fn(VirtAddr) -> Access,
        deadline: Option<Instant>,
    ) -> Result<(), TouchError> {
        self.mappings.lock().check(&range)?;
        for index in 0..distance(range.start, range.end) {
            let page = range.start.page_add(index);
            let fault = Fault { address: page.as_u64(), access: access(page), user: self.is_user() };
            let resolve = self.resolve(fault);
            let outcome = match deadline {
                None => resolve.await,
                Some(deadline) => {
                    let in_time = timeout_at(deadline, resolve).await;
                    in_time.map_err(|_| TouchError::TimeIsOver { page })?
                }
            };
            if let FaultOutcome::Denied(why) = outcome {
                return Err(TouchError::Denied { page, why });
            }
            if (index + 1).is_multiple_of(BATCH) {
                executor::yield_now().await;
            }
        }
        Ok(())
    }

    /// The access that leaves the least to do for later ones and changes nothing that others see.
    fn strongest_access(&self, page: VirtAddr) -> Access {
        let mappings = self.mappings.lock();
        match mappings.at(page) {
            Some(mapping) if mapping.protection.write && matches!(mapping.shows, Backing::Private(..)) => {
                Access::Write
            }
            Some(mapping) if !mapping.protection.read && mapping.protection.execute => Access::Execute,
            _ => Access::Read,
        }
    }

    /// Says of each page from `start` on whether it is in memory, as many as `pages` has room for: whether a read would find
    /// it without a load, in a frame of its own. Private memory that was never written shows a page of zeros that is
    /// everybody's, and does not count. It may change at any time. Never waits.
    ///
    /// # Errors
    /// `Empty`, `Unaligned`, `WrapsAround`, `OutOfRange`, `NotMapped` where a page has no mapping; then what is in `pages`
    /// means nothing.
    pub fn resident(&self, start: VirtAddr, pages: &mut [bool]) -> Result<(), MapError> {
        let bytes = (pages.len() as u64).checked_mul(PAGE_BYTES).ok_or(MapError::WrapsAround)?;
        let end = start.as_u64().checked_add(bytes).ok_or(MapError::WrapsAround)?;
        let range = start..VirtAddr::new(end).ok_or(MapError::OutOfRange)?;
        self.mappings.lock().check(&range)?;
        for (index, resident) in (0..).zip(pages) {
            let page = start.page_add(index);
            let (shows, index) = {
                let mappings = self.mappings.lock();
                let mapping = mappings.at(page).filter(|mapping| mapping.going.is_none());
                let mapping = mapping.ok_or(MapError::NotMapped)?;
                (mapping.shows.clone(), mapping.first + distance(mapping.start, page))
            };
            *resident = shows.is_resident(index);
        }
        Ok(())
    }
}
