//! What spaces show: mapping, unmapping, moving, rights, forks.

use std::ops::Range;

use mm::MapError;

use super::{GIVEN, Going, Model, PAGES, SHARED, Shows, Slot, Time, Twin, Words};

impl Model {
    /// Whether a fork under way sees it.
    pub(super) fn is_forked(&self, cell: usize) -> bool {
        let sees = |slot: &Slot| matches!(slot.shows, Shows::Own(other, _) if other == cell);
        self.twins.iter().any(|twin| twin.slots.iter().flatten().any(sees))
    }

    /// Whether these pages may not be free yet, though nothing is mapped there.
    fn is_going(&self, space: usize, pages: &Range<usize>) -> bool {
        let meets = |of: &Range<usize>| of.start < pages.end && pages.start < of.end;
        self.going.iter().any(|going| going.space == space && meets(&going.pages))
    }

    /// Something is mapped there from now on, so nothing of what was there before is remembered.
    fn is_free(&mut self, space: usize, pages: &Range<usize>) {
        let now = self.now;
        self.forgotten(space, pages, now);
    }

    fn goes(&mut self, space: usize, pages: Range<usize>) -> Time {
        let number = self.tick();
        self.going.push(Going { number, space, pages });
        number
    }

    /// What went with that number is gone.
    pub(crate) fn gone(&mut self, number: Time) {
        if let Some(index) = self.going.iter().position(|going| going.number == number) {
            let going = self.going.swap_remove(index);
            self.forgotten(going.space, &going.pages, number);
        }
    }

    pub(crate) fn unmap(&mut self, space: usize, pages: Range<usize>) -> Time {
        self.spaces[space][pages.clone()].fill(None);
        self.goes(space, pages)
    }

    /// What was mapped, or why not.
    pub(crate) fn map(&mut self, space: usize, at: usize, slots: &[Slot], told: Result<(), MapError>) {
        let pages = at..at + slots.len();
        if self.spaces[space][pages.clone()].iter().any(Option::is_some) {
            assert_eq!(told, Err(MapError::Overlap));
        } else if told.is_err() {
            assert_eq!(told, Err(MapError::Overlap));
            assert!(self.is_going(space, &pages), "nothing is there");
        } else {
            self.is_free(space, &pages);
            for (slot, new) in self.spaces[space][pages].iter_mut().zip(slots) {
                *slot = Some(*new);
            }
        }
    }

    /// Rights changed, or why not.
    pub(crate) fn protect(
        &mut self,
        space: usize,
        pages: Range<usize>,
        rights: u8,
        refused: Option<MapError>,
    ) -> Time {
        let slots = &mut self.spaces[space][pages];
        if slots.iter().any(Option::is_none) {
            assert_eq!(refused, Some(MapError::NotMapped));
        } else {
            assert_eq!(refused, None);
            slots.iter_mut().flatten().for_each(|slot| slot.rights = rights);
        }
        self.tick()
    }

    /// Nobody has more rights than these from before that time.
    pub(crate) fn protected(&mut self, space: usize, pages: Range<usize>, rights: u8, began: Time) {
        if rights == 0 {
            self.forgotten(space, &pages, began);
        }
        for (place, known) in &mut self.remembered {
            if place.space == space && pages.contains(&place.at) && known.since < began {
                known.write &= rights == 2;
            }
        }
    }

    /// Moved, or why not. With what goes.
    pub(crate) fn remap(
        &mut self,
        space: usize,
        from: Range<usize>,
        to: Range<usize>,
        refused: Option<MapError>,
    ) -> Time {
        let new = if from.start == to.start { from.end.min(to.end)..to.end } else { to.clone() };
        let expected = self.moved(space, &from, &to, &new);
        let Ok(moved) = expected else {
            let may_overlap = refused == Some(MapError::Overlap) && self.is_going(space, &new);
            assert!(may_overlap || refused == expected.err(), "{refused:?}");
            return self.tick();
        };
        if let Some(why) = refused {
            assert!(why == MapError::Overlap && self.is_going(space, &new), "nothing is there: {why:?}");
            return self.tick();
        }
        self.is_free(space, &new);
        let slots = &mut self.spaces[space];
        slots[from.clone()].fill(None);
        slots[to.clone()].copy_from_slice(&moved);
        let goes = if from.start == to.start { to.end.min(from.end)..from.end } else { from };
        self.goes(space, goes)
    }

    fn moved(
        &mut self,
        space: usize,
        from: &Range<usize>,
        to: &Range<usize>,
        new: &Range<usize>,
    ) -> Result<Vec<Option<Slot>>, MapError> {
        let slots = self.spaces[space];
        let mut moved = slots[from.clone()].to_vec();
        if moved.iter().any(Option::is_none) {
            return Err(MapError::NotMapped);
        }
        if slots[new.clone()].iter().any(Option::is_some) {
            return Err(MapError::Overlap);
        }
        while moved.len() < to.len() {
            let last = moved[moved.len() - 1].expect("looked at above");
            let shows = match last.shows {
                Shows::Own(_, None) => self.own(None),
                Shows::Own(_, Some(page)) if page + 1 < PAGES => self.own(Some(page + 1)),
                Shows::File(page) if page + 1 < PAGES => Shows::File(page + 1),
                Shows::Shared(page) if page + 1 < SHARED => Shows::Shared(page + 1),
                Shows::Given(page) if page + 1 < GIVEN => Shows::Given(page + 1),
                _ => return Err(MapError::BeyondObject),
            };
            moved.push(Some(Slot { shows, ..last }));
        }
        moved.truncate(to.len());
        Ok(moved)
    }

    /// Another frame is shown where frames are given, or why not. The cell of the one before.
    pub(crate) fn replace(
        &mut self,
        space: usize,
        at: usize,
        new: Words,
        refused: Option<MapError>,
    ) -> usize {
        let Some(Slot { shows: shows @ Shows::Given(page), .. }) = self.spaces[space][at] else {
            let is_mapped = self.spaces[space][at].is_some();
            let why = if is_mapped { MapError::NotManual } else { MapError::NotMapped };
            assert_eq!(refused, Some(why));
            return 0;
        };
        assert_eq!(refused, None);
        let (old, cell) = (self.cell_of(shows), self.cell(None, new));
        self.given[page].push(cell);
        old
    }

    /// Nobody remembers a frame that was replaced, and it holds all that was written.
    pub(crate) fn replaced(&mut self, cell: usize, words: Words) {
        assert_eq!(words, self.cells[cell].words, "words of a frame that was given back");
        self.remembered.retain(|_, known| known.cell != cell);
    }

    /// A fork begins: the twin sees what the space does, and so do both what a CPU writes that has not forgotten.
    pub(crate) fn fork(&mut self, space: usize) -> Time {
        let (number, slots) = (self.tick(), self.spaces[space]);
        self.twins.push(Twin { number, space, slots });
        self.protecting.push((space, number));
        number
    }

    /// The twin is there: each has its own words from now on.
    pub(crate) fn forked(&mut self, number: Time) -> usize {
        let index = self.twins.iter().position(|twin| twin.number == number).expect("it is under way");
        let Twin { space, mut slots, .. } = self.twins.remove(index);
        for slot in slots.iter_mut().flatten() {
            if let Shows::Own(cell, of) = slot.shows {
                slot.shows = self.own(of);
                let new = self.cell_of(slot.shows);
                self.cells[new].words = self.cells[cell].words;
            }
        }
        self.protecting.retain(|&(of, began)| of != space || began > number);
        for (place, known) in &mut self.remembered {
            if place.space == space && known.since < number && self.cells[known.cell].is_own {
                known.write = false;
            }
        }
        self.spaces.push(slots);
        self.spaces.len() - 1
    }

    /// There will be no twin.
    pub(crate) fn not_forked(&mut self, number: Time) {
        self.twins.retain(|twin| twin.number != number);
    }
}
