//! Which pages versions have, and how many.

use core::ops::Range;

use super::{Version, VersionId, Versions};
use crate::page_state::{PageEntry, PageState};

/// Parts of a page that pages held are counted in, so that what is added up piece by piece is not rounded piece by piece.
pub(crate) const PARTS: u64 = 1 << 20;

/// Forks after which what was before the first is hardly a version's any more.
const MOST_HALVES: u32 = 16;

impl Versions {
    /// Whether neither a version nor the past above it has any of these pages; not if the version is gone.
    pub(crate) fn has_none(&self, id: VersionId, pages: &Range<u64>) -> bool {
        let mut place = self.is(id).then_some(id.place);
        while let Some(version) = place.map(|place| self.at(place)) {
            if version.pages.next_used(pages.clone()).is_some() {
                return false;
            }
            place = version.parent;
        }
        self.is(id)
    }

    /// Which of these pages, 64 at most, a version or the past above it has: a bit each, from the first on. `None` if the
    /// version is gone.
    pub(crate) fn which(&self, id: VersionId, pages: &Range<u64>) -> Option<u64> {
        let mut place = self.is(id).then_some(id.place);
        let mut which = place.map(|_| 0);
        while let Some(version) = place.map(|place| self.at(place)) {
            version.pages.for_each_in(pages.clone(), |index, _| {
                which = which.map(|which| which | 1 << (index - pages.start));
            });
            place = version.parent;
        }
        which
    }

    /// The pages that a version has, and of those of the past half where two go on from it; for each of its mappings.
    /// In parts of a page: [`PARTS`] are one. With a range only those in it whose frames are in nobody else's hands:
    /// each is looked at.
    pub(crate) fn pages_held(&self, id: VersionId, range: Option<&Range<u64>>) -> u64 {
        let mut place = self.is(id).then_some(id.place);
        let users = place.map_or(1, |_| self.users(id).max(1));
        let (mut pages, mut halves) = (0, 0);
        // One that leaves may be with a device.
        let has_frame =
            |entry: PageEntry| matches!(entry.state(), PageState::Dirty { .. } | PageState::Loaded { .. });
        while let Some(version) = place.map(|place| self.at(place)).filter(|_| halves < MOST_HALVES) {
            let held =
                range.map_or(version.pages.len(), |range| version.pages.count(range.clone(), has_frame));
            pages += (held as u64 * PARTS) >> halves;
            place = version.parent;
            halves += u32::from(place.is_some_and(|above| !self.at(above).children.contains(&None)));
        }
        pages / users as u64
    }

    /// The first page from one on that a version or the past above it has; none if the version is gone.
    pub(crate) fn next_held(&self, id: VersionId, from: u64) -> Option<u64> {
        let (mut place, mut first) = (self.is(id).then_some(id.place), None);
        while let Some(version) = place.map(|place| self.at(place)) {
            let found = version.pages.next_used(from..first.unwrap_or(self.pages));
            first = found.map(|(index, _)| index).or(first);
            place = version.parent;
        }
        first
    }

    /// The first page from one on that any version has.
    pub(crate) fn next_used(&self, from: u64) -> Option<u64> {
        let first = |version: &Version| version.pages.next_used(from..self.pages).map(|(index, _)| index);
        self.versions.iter().flatten().filter_map(first).min()
    }

    /// All pages of a range that any version has, with their entries.
    pub(crate) fn for_each_used(&self, range: Range<u64>, mut each: impl FnMut(u64, PageEntry)) {
        for version in self.versions.iter().flatten() {
            version.pages.for_each_in(range.clone(), &mut each);
        }
    }
}
