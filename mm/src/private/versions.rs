//! The versions of private memory: a binary tree, whose leaves are what address spaces have now, and whose inner nodes
//! are what they had when one of them was forked.
//!
//! ```text
//!   before      fork of a       a writes     b ends
//!
//!     a           past           past           a
//!                /    \         /    \
//!               a      b       a*     b
//! ```
//!
//! A page belongs to the nearest version on the way up that has it. At a fork what the version has goes to a new node
//! above it, which nobody changes any more; the version itself keeps its number and begins anew with nothing, beside a
//! twin. So a fork costs the same whatever there is. A past with one descendant left is merged with it, the smaller set
//! of pages into the larger: so the tree is as deep as the number of those who live, not of those who ever lived.
//! Nothing here recurses, and what may run out of memory does so before anything is changed.

mod end;
mod held;
mod seen;

use alloc::vec::Vec;

use crate::frame::Moment;
use crate::page_index_map::{PageIndexMap, Vacancy};
use crate::page_state::PageEntry;
use crate::trace::{ObjectName, Owner};
use crate::{Memory, OutOfMemory, PageEvent};

pub(crate) use end::Ended;
pub(crate) use held::PARTS;

/// Names a version for good: places are used again, numbers are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VersionId {
    pub(super) place: u32,
    number: u32,
}

/// Since when no CPU may write to the pages of the past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    /// Whoever forks is just taking the rights away.
    NotYet,
    /// When this moment is over.
    At(Moment),
}

struct Version {
    number: u32,
    pages: PageIndexMap,
    parent: Option<u32>,
    /// A version of the past has two, or one where there was no memory to merge them.
    children: [Option<u32>; 2],
    /// Mappings that show it; none show the past.
    users: usize,
    settled: Settled,
    /// When it was merged with a past last: CPUs that ran who ended may read pages of it until this is over.
    merged: Moment,
    /// The latest fork's number, and the twin that it made.
    twin: Option<(u64, VersionId)>,
}

/// Where a page of a version was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The version has it.
    Own(PageEntry),
    /// The past has it, at this place.
    Past(u32, PageEntry),
    Nothing,
}

/// All versions of one private object.
pub(crate) struct Versions {
    memory: &'static Memory,
    /// What its indexes are named by, and how many of them there were.
    name: u32,
    indexes: u32,
    versions: Vec<Option<Version>>,
    pages: u64,
    numbers: u32,
}

impl Versions {
    /// One version without users, of so many pages.
    pub(crate) fn try_new(memory: &'static Memory, pages: u64) -> Result<(Self, VersionId), OutOfMemory> {
        let mut versions = Self {
            memory,
            name: memory.number_mapping() as u32,
            indexes: 0,
            versions: Vec::new(),
            pages,
            numbers: 0,
        };
        versions.reserve(1)?;
        let pages = versions.index();
        let first = versions.add(None, pages);
        Ok((versions, first))
    }

    fn reserve(&mut self, places: usize) -> Result<(), OutOfMemory> {
        let free = self.versions.iter().filter(|place| place.is_none()).take(places).count();
        self.versions.try_reserve(places - free).map_err(|_| OutOfMemory)
    }

    /// An index without pages, by a name of its own.
    fn index(&mut self) -> PageIndexMap {
        self.indexes = self.indexes.wrapping_add(1);
        let name = ObjectName::private(self.name, self.indexes);
        PageIndexMap::new(Owner { memory: self.memory, name }, self.pages)
    }

    /// There is room.
    fn add(&mut self, parent: Option<u32>, pages: PageIndexMap) -> VersionId {
        let number = self.numbers;
        self.numbers = number.wrapping_add(1);
        let version = Version {
            number,
            pages,
            parent,
            children: [None; 2],
            users: 0,
            settled: Settled::NotYet,
            merged: Moment::from_number(0),
            twin: None,
        };
        let place = self.versions.iter().position(Option::is_none).unwrap_or_else(|| {
            self.versions.push(None);
            self.versions.len() - 1
        });
        self.versions[place] = Some(version);
        VersionId { place: place as u32, number }
    }

    #[inline]
    fn at(&self, place: u32) -> &Version {
        self.versions[place as usize].as_ref().expect("links lead to versions")
    }

    fn at_mut(&mut self, place: u32) -> &mut Version {
        self.versions[place as usize].as_mut().expect("links lead to versions")
    }

    #[inline]
    fn get(&self, id: VersionId) -> Option<&Version> {
        self.versions.get(id.place as usize)?.as_ref().filter(|version| version.number == id.number)
    }

    #[inline]
    fn get_mut(&mut self, id: VersionId) -> Option<&mut Version> {
        self.versions.get_mut(id.place as usize)?.as_mut().filter(|version| version.number == id.number)
    }

    fn is(&self, id: VersionId) -> bool {
        self.get(id).is_some()
    }

    /// How many versions there are, the past included.
    pub(crate) fn count(&self) -> usize {
        self.versions.iter().flatten().count()
    }

    /// Where a page comes from; `None` when the version is gone. Part of each touch.
    #[inline(always)]
    pub(crate) fn find(&self, id: VersionId, index: u64) -> Option<Found> {
        let version = self.get(id)?;
        let entry = version.pages.get(index);
        Some(match version.parent {
            _ if entry != PageEntry::ABSENT => Found::Own(entry),
            None => Found::Nothing,
            Some(past) => self.find_in_past(past, index),
        })
    }

    /// The same from a past on.
    #[inline]
    fn find_in_past(&self, past: u32, index: u64) -> Found {
        let mut place = past;
        loop {
            let version = self.at(place);
            let entry = version.pages.get(index);
            if entry != PageEntry::ABSENT {
                return Found::Past(place, entry);
            }
            match version.parent {
                Some(parent) => place = parent,
                None => return Found::Nothing,
            }
        }
    }

    /// Where a version sees a page, whoever has it, and what it is.
    pub(crate) fn find_place(&self, id: VersionId, index: u64) -> Option<(u32, PageEntry)> {
        match self.find(id, index)? {
            Found::Own(entry) => Some((id.place, entry)),
            Found::Past(place, entry) => Some((place, entry)),
            Found::Nothing => None,
        }
    }

    /// The page of any version whose entry is what is looked for, and where.
    pub(crate) fn find_entry(
        &self,
        index: u64,
        is_it: impl Fn(PageEntry) -> bool,
    ) -> Option<(u32, PageEntry)> {
        self.versions.iter().enumerate().find_map(|(place, version)| {
            let entry = version.as_ref()?.pages.get(index);
            is_it(entry).then_some((place as u32, entry))
        })
    }

    /// Changes the page of any version whose entry is what is looked for as `change` says, if it does, which is told
    /// whether nothing is above that version.
    #[inline]
    pub(crate) fn change(
        &mut self,
        index: u64,
        is_it: impl Fn(PageEntry) -> bool,
        change: impl FnOnce(PageEntry, bool) -> Option<(PageEvent, PageEntry)>,
    ) {
        let mut change = Some(change);
        for version in self.versions.iter_mut().flatten() {
            let is_first = version.parent.is_none();
            version.pages.update(index, |entry| {
                if is_it(entry) { change.take().and_then(|change| change(entry, is_first)) } else { None }
            });
            if change.is_none() {
                return;
            }
        }
    }

    /// The entry of a page at a place.
    pub(crate) fn entry(&self, place: u32, index: u64) -> PageEntry {
        self.at(place).pages.get(index)
    }

    /// Changes a page's entry at a place where it has one.
    pub(crate) fn set(&mut self, place: u32, index: u64, event: PageEvent, entry: PageEntry) {
        self.at_mut(place).pages.set(index, event, entry);
    }

    /// The frame that a version sees a page in, if it was changed in that version or before a fork.
    pub(crate) fn frame(&self, id: VersionId, index: u64) -> Option<u64> {
        match self.find(id, index)? {
            Found::Own(entry) | Found::Past(_, entry) => entry.frame(),
            Found::Nothing => None,
        }
    }

    /// Since when no CPU may write to the pages that a past has.
    #[inline]
    pub(crate) fn settled(&self, place: u32) -> Settled {
        self.at(place).settled
    }

    /// When no CPU sees a page that a version has without running that version.
    #[inline]
    pub(crate) fn merged(&self, id: VersionId) -> Moment {
        self.at(id.place).merged
    }

    /// The pages that a version itself has, to be changed.
    #[inline]
    pub(crate) fn own(&mut self, id: VersionId) -> Option<&mut PageIndexMap> {
        self.own_and_users(id).map(|(pages, _)| pages)
    }

    /// The same, with how many mappings show the version.
    #[inline]
    pub(crate) fn own_and_users(&mut self, id: VersionId) -> Option<(&mut PageIndexMap, usize)> {
        self.get_mut(id).map(|version| (&mut version.pages, version.users))
    }

    /// The room for a page that neither a version nor a past above it has, if there is any already, and how many mappings
    /// show the version. `None` where that takes more than one look.
    #[inline]
    pub(crate) fn untouched(&mut self, id: VersionId, index: u64) -> Option<(Vacancy<'_>, usize)> {
        let version = self.get_mut(id).filter(|version| version.parent.is_none())?;
        Some((version.pages.vacancy(index)?, version.users))
    }

    /// Gives a version a page that only it sees, out of the past above it. There is room for it.
    pub(crate) fn take(&mut self, id: VersionId, past: u32, index: u64) {
        let pages = &mut self.at_mut(past).pages;
        let entry = pages.get(index);
        pages.set(index, PageEvent::Move, PageEntry::ABSENT);
        self.at_mut(id.place).pages.set(index, PageEvent::Move, entry);
    }

    /// A mapping more shows a version.
    pub(crate) fn add_user(&mut self, id: VersionId) {
        debug_assert!(self.is(id), "mappings keep their version");
        self.at_mut(id.place).users += 1;
    }

    /// Makes a twin of a version, which sees what that has now, and goes its own way; the same twin for each call with
    /// the same number, as a space may show a version in several pieces.
    pub(crate) fn fork(&mut self, id: VersionId, number: u64) -> Result<VersionId, OutOfMemory> {
        debug_assert!(self.is(id), "mappings keep their version");
        if let Some((of, twin)) = self.at(id.place).twin
            && of == number
        {
            return Ok(twin);
        }
        self.reserve(2)?;
        let parent = self.at(id.place).parent;
        let (fresh, none) = (self.index(), self.index());
        let pages = core::mem::replace(&mut self.at_mut(id.place).pages, fresh);
        let past = self.add(parent, pages);
        let twin = self.add(Some(past.place), none);
        let version = self.at_mut(id.place);
        version.twin = Some((number, twin));
        version.parent = Some(past.place);
        let above = self.at_mut(past.place);
        above.children = [Some(id.place), Some(twin.place)];
        if let Some(parent) = parent {
            self.relink(parent, id.place, Some(past.place));
        }
        self.settle_from(past.place, Settled::NotYet);
        Ok(twin)
    }

    /// Notes since when no CPU may write any more to what a version had when it was forked.
    pub(crate) fn settle(&mut self, id: VersionId, number: u64, at: Moment) {
        let version = self.at(id.place);
        let forked = version.twin.is_some_and(|(of, _)| of == number);
        if let Some(past) = version.parent.filter(|_| forked) {
            self.settle_from(past, Settled::At(at));
        }
    }

    /// Settles a past, and those above it that are half merged with it: they may have pages of its.
    fn settle_from(&mut self, past: u32, settled: Settled) {
        let mut place = past;
        loop {
            self.at_mut(place).settled = settled;
            match self.at(place).parent {
                Some(parent) if self.at(parent).children.contains(&None) => place = parent,
                _ => return,
            }
        }
    }

    fn relink(&mut self, parent: u32, child: u32, by: Option<u32>) {
        let children = &mut self.at_mut(parent).children;
        if let Some(link) = children.iter_mut().find(|link| **link == Some(child)) {
            *link = by;
        }
    }

    /// How many mappings show a version.
    pub(crate) fn users(&self, id: VersionId) -> usize {
        self.at(id.place).users
    }
}
