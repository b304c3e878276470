//! What a scenario has made so far: files, spaces, mappings, threads.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use executor::lock::SpinLock;
use mm::{
    AddressSpace, Frame, Memory, OutOfMemory, PAGE_SIZE, PageIndex, PageState, ReadAhead, VirtAddr, VmObject,
};

use crate::answer::Answer;
use crate::book::{Book, Key, Owner};
use crate::line::Wrong;
use crate::machine::SPACE;
use crate::pager::{Clock, FilePager};

/// The fewest pages of a mapping's place. Places begin at a multiple of it, which is one of the pages that are shown along,
/// too; and small mappings share a table.
const SMALLEST_PLACE: u64 = 32;
/// The first space.
pub(crate) const MAIN: usize = 0;

/// A file: blocks, and the object that caches them.
#[derive(Clone)]
pub(crate) struct File {
    /// Empty for what an overlay lies over.
    pub(crate) name: String,
    pub(crate) blocks: u64,
    pub(crate) pager: Arc<FilePager>,
    pub(crate) object: Arc<VmObject>,
    pub(crate) closed: bool,
    /// Of an overlay: the file that it lies over, which has the same pager.
    pub(crate) base: Option<usize>,
}

impl File {
    pub(crate) fn state(&self, block: u64) -> PageState {
        self.object.state(PageIndex::new(block))
    }
}

/// What a mapping shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shows {
    Anonymous,
    File { file: usize, first: u64, private: bool },
}

/// A mapping of one space.
#[derive(Clone)]
pub(crate) struct Mapped {
    /// No other mapping ever has it.
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) start: VirtAddr,
    pub(crate) pages: u64,
    pub(crate) shows: Shows,
    /// Pages that somebody began to write: no others of private memory are its own.
    pub(crate) written: BTreeSet<u64>,
}

impl Mapped {
    /// The address of one of its pages, or of the first behind it.
    pub(crate) fn at(&self, page: u64) -> VirtAddr {
        word_at(self.start, page, 0)
    }

    pub(crate) fn is_private(&self) -> bool {
        matches!(self.shows, Shows::Anonymous | Shows::File { private: true, .. })
    }

    /// The file's block that stands behind a page.
    pub(crate) fn block(&self, page: u64) -> Option<(usize, u64)> {
        match self.shows {
            Shows::File { file, first, .. } if page < self.pages => Some((file, first + page)),
            _ => None,
        }
    }
}

/// An address space.
pub(crate) struct Space {
    pub(crate) name: String,
    pub(crate) space: Arc<AddressSpace>,
    pub(crate) mappings: Vec<Mapped>,
}

/// An access under way.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) space: usize,
    /// Where the page is. When the thread gets to it, there may be another mapping of the same name.
    pub(crate) at: VirtAddr,
    pub(crate) page: u64,
    pub(crate) write: bool,
    /// The block of a file that it is about, or that it would copy.
    pub(crate) block: Option<(usize, u64)>,
}

/// Where a name's mappings are: at the start of a range of which at least the second half shows nothing.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    start: VirtAddr,
    pages: u64,
}

impl Place {
    /// The address of a word. Pages behind the place stand for its last page, where nothing is mapped.
    pub(crate) fn word(self, page: u64, word: u64) -> VirtAddr {
        word_at(self.start, page.min(self.pages - 1), word)
    }
}

/// Where a thread leaves what it brings.
pub(crate) type Slot<T> = Arc<SpinLock<Option<T>>>;

/// What a thread does.
pub(crate) enum Doing {
    /// It was done at once.
    Nothing,
    Access(Target),
    Other(Slot<Answer>),
    Close {
        file: usize,
        slot: Slot<Answer>,
    },
    Unmap {
        space: usize,
        mapping: u64,
        slot: Slot<Answer>,
    },
    Fork {
        from: usize,
        to: String,
        slot: Slot<Result<Arc<AddressSpace>, OutOfMemory>>,
    },
}

/// A thread that a command was given to.
pub(crate) struct Running<T> {
    /// The name that `go` gave it.
    pub(crate) id: Option<String>,
    /// Until it has ended.
    pub(crate) thread: Option<T>,
    pub(crate) doing: Doing,
    pub(crate) answer: Option<Answer>,
}

/// Everything.
pub(crate) struct World<T> {
    pub(crate) memory: &'static Memory,
    pub(crate) clock: Clock,
    pub(crate) files: Vec<File>,
    pub(crate) spaces: Vec<Space>,
    /// Those that have not ended, in the order in which they were started.
    pub(crate) threads: Vec<Running<T>>,
    /// What the others came to, of those with a name.
    pub(crate) ended: BTreeMap<String, Answer>,
    pub(crate) book: Book,
    /// Blocks that were reclaimed in this command: none is twice, so each command ends.
    pub(crate) reclaimed: BTreeSet<(usize, u64)>,
    /// The places of mappings, which keep theirs.
    places: BTreeMap<String, Place>,
    /// The end of the last of them.
    places_end: u64,
    /// The spaces of mappings, by the mappings' numbers, which are counted up.
    homes: Vec<usize>,
    /// Frames that the machine has and the scenario has not.
    _surplus: Vec<Frame>,
}

impl<T> World<T> {
    /// A world with so many frames and one space.
    pub(crate) fn new(memory: &'static Memory, frames: usize, main: Arc<AddressSpace>) -> Self {
        let mut surplus = Vec::new();
        while memory.frames().stats().free > frames {
            surplus.extend(memory.frames().try_alloc());
        }
        memory.set_read_ahead(ReadAhead::Never);
        let main = Space { name: "main".into(), space: main, mappings: Vec::new() };
        Self {
            memory,
            clock: Clock::default(),
            files: Vec::new(),
            spaces: Vec::from([main]),
            threads: Vec::new(),
            ended: BTreeMap::new(),
            book: Book::default(),
            reclaimed: BTreeSet::new(),
            places: BTreeMap::new(),
            places_end: SPACE.start.as_u64().next_multiple_of(SMALLEST_PLACE * PAGE_SIZE as u64),
            homes: Vec::new(),
            _surplus: surplus,
        }
    }

    pub(crate) fn file(&self, name: &str) -> Result<usize, Wrong> {
        self.files.iter().position(|file| file.name == name).ok_or(Wrong)
    }

    pub(crate) fn space(&self, name: &str) -> Result<usize, Wrong> {
        self.spaces.iter().position(|space| space.name == name).ok_or(Wrong)
    }

    pub(crate) fn thread(&self, id: &str) -> Result<usize, Wrong> {
        self.threads.iter().position(|thread| thread.id.as_deref() == Some(id)).ok_or(Wrong)
    }

    /// Puts the threads that have ended aside, so that nobody looks through them for those that have not.
    pub(crate) fn retire(&mut self) {
        for running in self.threads.extract_if(.., |running| running.answer.is_some()) {
            self.ended.extend(running.id.zip(running.answer));
        }
    }

    /// A number for a new mapping of a space.
    pub(crate) fn number(&mut self, space: usize) -> u64 {
        self.homes.push(space);
        self.homes.len() as u64 - 1
    }

    /// The place of a mapping that has one.
    pub(crate) fn place(&self, mapping: &str) -> Result<Place, Wrong> {
        self.places.get(mapping).copied().ok_or(Wrong)
    }

    /// Where a mapping of so many pages is, which has a place from now on: a larger one than before where it must be. `None`
    /// when there is no room for it.
    pub(crate) fn make_place(&mut self, mapping: &str, pages: u64) -> Option<VirtAddr> {
        let room = (2 * pages).next_power_of_two().max(SMALLEST_PLACE);
        if let Some(place) = self.places.get(mapping)
            && place.pages >= room
        {
            return Some(place.start);
        }
        let end = self.places_end.checked_add(room * PAGE_SIZE as u64)?;
        if end > SPACE.end.as_u64() {
            return None;
        }
        let start = VirtAddr::truncated(self.places_end);
        self.places_end = end;
        self.places.insert(mapping.into(), Place { start, pages: room });
        Some(start)
    }

    /// The mapping of a name in a space.
    pub(crate) fn mapping(&self, space: usize, name: &str) -> Option<&Mapped> {
        self.spaces[space].mappings.iter().find(|mapping| mapping.name == name)
    }

    /// The mapping that a page of a space is one of.
    fn mapping_at(&self, space: usize, page: VirtAddr) -> Option<&Mapped> {
        let has_it = |mapping: &&Mapped| mapping.start <= page && page < mapping.at(mapping.pages);
        self.spaces[space].mappings.iter().find(has_it)
    }

    /// The pages of a mapping that is made now to which threads write that were on their way before it was there.
    pub(crate) fn being_written(&self, space: usize, start: VirtAddr, pages: u64) -> BTreeSet<u64> {
        let written = |running: &Running<T>| {
            let Doing::Access(target) = running.doing else { return None };
            let is_one = running.answer.is_none() && target.write && target.space == space;
            let first = target.at.as_u64().checked_sub(start.as_u64())? / PAGE_SIZE as u64;
            (is_one && first < pages).then_some(first)
        };
        self.threads.iter().filter_map(written).collect()
    }

    /// The mapping with a number, and its space.
    fn by_number(&self, number: u64) -> Option<(&Space, &Mapped)> {
        let space = self.spaces.get(*self.homes.get(number as usize)?)?;
        // They are entered in the order of their numbers.
        let at = space.mappings.binary_search_by_key(&number, |mapping| mapping.number).ok()?;
        Some((space, &space.mappings[at]))
    }

    /// The frame of a page that a private mapping has for itself, or shares with a fork only.
    pub(crate) fn private_frame(&self, mapping: u64, page: u64) -> Option<u64> {
        let (space, mapping) = self.by_number(mapping)?;
        space.space.private_frame(mapping.at(page))
    }

    /// Notes an access that was made.
    pub(crate) fn note_access(&mut self, target: Target) {
        let now = self.clock.tick();
        let mapping = self.mapping_at(target.space, target.at);
        let block = mapping.map_or(target.block, |mapping| mapping.block(target.page));
        let own = mapping
            .filter(|mapping| mapping.is_private())
            .and_then(|mapping| Some((mapping.number, self.private_frame(mapping.number, target.page)?)));
        match (own, block) {
            (Some((number, frame)), _) => {
                self.book.used((Owner::Private(number), target.page), target.write, Some(frame), now);
            }
            (None, Some((file, block))) => {
                let files = [Some(file), self.files[file].base].into_iter().flatten();
                let has_it = |file: &usize| self.files[*file].state(block).frame().is_some();
                if let Some(file) = files.into_iter().find(has_it) {
                    self.book.used((Owner::File(file), block), target.write, None, now);
                }
            }
            _ => {}
        }
    }

    /// Leaves out of the book what is not in memory any more.
    pub(crate) fn refresh_book(&mut self) {
        let mut book = core::mem::take(&mut self.book);
        // What an overlay had and its base has now was folded into it.
        book.move_all(|(owner, page)| match owner {
            Owner::File(file) if self.files[file].state(page) == PageState::Absent => {
                let base = self.files[file].base?;
                self.files[base].state(page).frame().map(|_| (Owner::File(base), page))
            }
            _ => None,
        });
        book.refresh(|(owner, page), times| match owner {
            Owner::File(file) => match self.files[file].state(page) {
                PageState::Loaded { .. } => Some(false),
                PageState::Dirty { .. } | PageState::WritingBack { .. } => Some(true),
                _ => None,
            },
            Owner::Private(mapping) => {
                self.private_frame(mapping, page).filter(|&frame| Some(frame) == times.frame).map(|_| true)
            }
        });
        self.book = book;
    }

    /// The clean page that all of so many who wait for a frame would copy, if there is one. To take it for them helps
    /// nobody: they would load it again, and wait as before.
    pub(crate) fn source_of_all(&self, waiting: usize) -> Option<(usize, u64)> {
        let source = |running: &Running<T>| {
            let Doing::Access(Target { write: true, space, at, page, block: Some((file, block)) }) =
                running.doing
            else {
                return None;
            };
            let has_own = |mapping: &Mapped| self.private_frame(mapping.number, page).is_some();
            if self.mapping_at(space, at).is_some_and(has_own) {
                return None;
            }
            let files = [Some(file), self.files[file].base].into_iter().flatten();
            let has_it = |file: &usize| self.files[*file].state(block).frame().is_some();
            let file = files.into_iter().find(has_it)?;
            let is_clean = matches!(self.files[file].state(block), PageState::Loaded { .. });
            is_clean.then_some((file, block))
        };
        let running = self.threads.iter().filter(|running| running.answer.is_none());
        let sources: Vec<_> = running.filter_map(source).collect();
        let &first = sources.first()?;
        (sources.len() >= waiting && sources.iter().all(|&source| source == first)).then_some(first)
    }

    /// The clean page that was used longest ago, of those that were not reclaimed in this command and that `may` go.
    pub(crate) fn oldest_clean(&self, may: impl Fn((usize, u64)) -> bool) -> Option<(usize, u64)> {
        let (owner, block) = self.book.oldest(|(owner, block)| match owner {
            Owner::File(file) => {
                matches!(self.files[file].state(block), PageState::Loaded { .. })
                    && !self.reclaimed.contains(&(file, block))
                    && may((file, block))
            }
            Owner::Private(_) => false,
        })?;
        match owner {
            Owner::File(file) => Some((file, block)),
            Owner::Private(_) => None,
        }
    }

    /// Clean pages, those used longest ago first.
    pub(crate) fn clean_oldest_first(&self) -> Vec<(usize, u64)> {
        let clean = |key: Key| match key {
            (Owner::File(file), block) => {
                matches!(self.files[file].state(block), PageState::Loaded { .. }).then_some((file, block))
            }
            (Owner::Private(_), _) => None,
        };
        self.book.newest_first().into_iter().rev().filter_map(|(key, _)| clean(key)).collect()
    }
}

/// The address of a word of a mapping's page.
pub(crate) fn word_at(start: VirtAddr, page: u64, word: u64) -> VirtAddr {
    VirtAddr::truncated(start.as_u64() + page * PAGE_SIZE as u64 + word * 8)
}
