//! The table of `page_state` as code reads it: which state each event may lead to.
//!
//! A change that the table does not have cannot happen. Whoever replays recorded changes (see
//! [`trace::Checker`](crate::trace::Checker)) finds the first that does not fit.

use core::fmt;

use super::PageEvent;
use crate::page_state::{ABSENT, BETWEEN, DIRTY, DISCARDED, DROPPED, FAILED, INVALIDATED, LOADED, LOADING};
use crate::page_state::{COPIED, REFERENCED, STORED, WRITING_BACK, WRITTEN};
use crate::page_state::{SWAPPED, SWAPPING_IN, SWAPPING_OUT};

/// A state, and some of the bits beside it.
#[derive(Clone, Copy)]
struct Shape {
    code: u64,
    with: u64,
    without: u64,
}

impl Shape {
    const fn with(self, bits: u64) -> Self {
        Self { with: self.with | bits, ..self }
    }

    const fn without(self, bits: u64) -> Self {
        Self { without: self.without | bits, ..self }
    }

    fn fits(self, bits: u64) -> bool {
        bits & 15 == self.code && bits & self.with == self.with && bits & self.without == 0
    }
}

const fn state(code: u64) -> Shape {
    Shape { code, with: 0, without: BETWEEN }
}

/// As the tables of `page_state` name them.
const PLAIN: Shape = state(LOADED);
const USED: Shape = PLAIN.with(REFERENCED);
const UNUSED: Shape = PLAIN.without(REFERENCED);
const LEAVING: Shape = Shape { code: LOADED, with: BETWEEN, without: REFERENCED };
const CHANGED: Shape = state(DIRTY);
/// Not, as far as the entry knows, written since a store.
const STORED_SINCE: Shape = CHANGED.with(STORED).without(WRITTEN);
const NEVER_STORED: Shape = CHANGED.without(STORED);
const WRITTEN_SINCE: Shape = CHANGED.with(WRITTEN);
const CLEANING: Shape = Shape { code: DIRTY, with: BETWEEN, without: 0 };
/// Nothing is there, and nobody may use what was.
const NOTHING: [Shape; 3] = [state(ABSENT), state(FAILED), state(DROPPED)];
const GONE: Shape = NOTHING[0];

use PageEvent as E;

/// What each event makes of a page in each state. What is not here cannot happen; what changes nothing is not recorded.
const TABLE: &[(&[Shape], &[PageEvent], Shape)] = &[
    // Touches.
    (&NOTHING, &[E::Read, E::Write], state(LOADING)),
    (&NOTHING, &[E::Read, E::Write], NEVER_STORED.without(WRITTEN)),
    (&[GONE], &[E::Ahead], state(LOADING)),
    (&[UNUSED, LEAVING], &[E::Read], USED),
    (&[PLAIN.without(STORED), LEAVING.without(STORED)], &[E::Write, E::Noted], NEVER_STORED),
    (&[PLAIN.with(STORED), LEAVING.with(STORED)], &[E::Write, E::Noted], WRITTEN_SINCE.with(STORED)),
    (&[CHANGED, CLEANING], &[E::Write, E::Noted], WRITTEN_SINCE),
    (&[state(WRITING_BACK)], &[E::Write, E::Noted], state(WRITING_BACK).with(WRITTEN)),
    // The page that was shown before a copy is forgotten.
    (&[CHANGED.with(COPIED)], &[E::Read], CHANGED.without(COPIED)),
    (&[CLEANING.with(COPIED)], &[E::Read], CLEANING.without(COPIED)),
    (&[state(WRITING_BACK).with(COPIED)], &[E::Read], state(WRITING_BACK).without(COPIED)),
    // Ends of loads.
    (&[state(LOADING)], &[E::LoadDone], PLAIN),
    (&[state(LOADING)], &[E::LoadFailed], state(FAILED)),
    (&[state(LOADING)], &[E::LoadFailed], GONE),
    (&[state(INVALIDATED)], &[E::LoadDone, E::LoadFailed], GONE),
    // Dropping.
    (&[PLAIN, LEAVING], &[E::Drop, E::Fold], state(DROPPED)),
    (&[CHANGED, CLEANING], &[E::Drop, E::Discard], state(DROPPED)),
    (&[state(WRITING_BACK)], &[E::Drop, E::Discard], state(DISCARDED)),
    (&[state(LOADING)], &[E::Drop], state(INVALIDATED)),
    (&[state(FAILED)], &[E::Drop], GONE),
    (&[state(DROPPED)], &[E::Forgotten], GONE),
    // Giving back.
    (&[USED], &[E::Evict], UNUSED),
    (&[PLAIN], &[E::Evict], LEAVING),
    (&[LEAVING], &[E::Forgotten], GONE),
    // Storing.
    (&[CHANGED, CLEANING], &[E::Store], state(WRITING_BACK).with(STORED).without(WRITTEN)),
    (&[state(WRITING_BACK).without(WRITTEN)], &[E::StoreDone], STORED_SINCE),
    (&[state(WRITING_BACK).with(WRITTEN)], &[E::StoreDone], WRITTEN_SINCE.with(STORED)),
    (&[state(WRITING_BACK)], &[E::StoreFailed], WRITTEN_SINCE.with(STORED)),
    (&[state(DISCARDED)], &[E::StoreDone, E::StoreFailed], state(DROPPED)),
    // Marking.
    (&[NEVER_STORED], &[E::Mark], CLEANING),
    (&[STORED_SINCE], &[E::Mark], CLEANING.without(WRITTEN)),
    (&[CLEANING], &[E::Forgotten], USED),
    (&[CLEANING], &[E::Forgotten], CHANGED),
    (
        &[PLAIN.with(STORED), LEAVING.with(STORED), CHANGED.with(STORED), CLEANING.with(STORED)],
        &[E::NotDurable],
        WRITTEN_SINCE.with(STORED),
    ),
    // An overlay's page, and its base's.
    (&[CLEANING], &[E::Fold], GONE),
    (&NOTHING, &[E::Fold], USED),
    (&NOTHING, &[E::Write], WRITTEN_SINCE.with(STORED)),
    (&[CHANGED, CLEANING], &[E::Overwritten], WRITTEN_SINCE.with(STORED)),
    // Private memory.
    (&[CHANGED], &[E::Move, E::Unshown], GONE),
    (&[GONE, CHANGED], &[E::Move], CHANGED),
    // Of it, what swap has to do with. What comes from another version takes the place of anything.
    (&SWAPPABLE, &[E::Move, E::Unshown], GONE),
    (&SWAPPABLE, &[E::Move], CHANGED),
    (&WITH_CHANGED, &[E::Move], PLAIN),
    (&WITH_CHANGED, &[E::Move], state(SWAPPED)),
    (&WITH_CHANGED, &[E::Move], state(SWAPPING_OUT)),
    (&WITH_CHANGED, &[E::Move], state(SWAPPING_IN)),
    (&[CHANGED, PLAIN], &[E::Evict], state(SWAPPING_OUT)),
    (&[state(SWAPPING_OUT)], &[E::Read, E::Write, E::StoreFailed], NEVER_STORED),
    (&[state(SWAPPING_OUT)], &[E::Read, E::Write], USED),
    (&[state(SWAPPING_OUT)], &[E::Forgotten, E::StoreDone], state(SWAPPED)),
    (&[state(SWAPPING_OUT)], &[E::Forgotten], GONE),
    (&[PLAIN], &[E::StoreFailed, E::Evict], NEVER_STORED),
    (&[state(SWAPPED)], &[E::Read, E::Write, E::Ahead], state(SWAPPING_IN)),
    (&[state(SWAPPED)], &[E::Read, E::Write], NEVER_STORED),
    (&[state(SWAPPING_IN)], &[E::LoadDone], PLAIN),
    (&[state(SWAPPING_IN)], &[E::LoadFailed], state(SWAPPED)),
];

/// What a page of private memory is only where there is swap.
const SWAPPABLE: [Shape; 4] = [PLAIN, state(SWAPPED), state(SWAPPING_OUT), state(SWAPPING_IN)];
/// And what a page of another version may take the place of.
const WITH_CHANGED: [Shape; 6] =
    [PLAIN, state(SWAPPED), state(SWAPPING_OUT), state(SWAPPING_IN), CHANGED, GONE];

/// What is wrong with a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The table has no such step.
    NotInTable,
    /// The page has another frame than before.
    OtherFrame,
    /// Bits are set beside a state that never has them.
    Bits,
    /// The page keeps its frame, and it is not known any more that it was stored, or written since.
    Unlearned,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotInTable => "the table of states has no such step",
            Self::OtherFrame => "it keeps no frame, but gets another one",
            Self::Bits => "a state with bits that it never has",
            Self::Unlearned => "it is forgotten that the page was stored, or written since",
        })
    }
}

/// Whether bits may stand beside a state.
fn is_sound(bits: u64) -> bool {
    let allowed = match bits & 15 {
        LOADED => REFERENCED | BETWEEN | STORED,
        DIRTY => BETWEEN | STORED | WRITTEN | COPIED,
        WRITING_BACK => STORED | WRITTEN | COPIED,
        _ => 0,
    };
    let all = REFERENCED | BETWEEN | STORED | WRITTEN | COPIED;
    bits & all & !allowed == 0 && bits & (REFERENCED | BETWEEN) != REFERENCED | BETWEEN
}

/// Looks a change up: the entry's bits before and after, and the frames.
pub(crate) fn check(
    (from, had): (u64, Option<u64>),
    event: PageEvent,
    (to, has): (u64, Option<u64>),
) -> Result<(), Wrong> {
    let fits = |&(before, events, after): &(&[Shape], &[PageEvent], Shape)| {
        events.contains(&event) && after.fits(to) && before.iter().any(|shape| shape.fits(from))
    };
    if !is_sound(to) {
        return Err(Wrong::Bits);
    }
    if !TABLE.iter().any(fits) {
        return Err(Wrong::NotInTable);
    }
    let has_lost = |bit: u64| from & bit != 0 && to & bit == 0;
    // Only a store begins anew; what is written and was never stored says so by being dirty.
    let unlearned = has_lost(STORED) || from & STORED != 0 && event != E::Store && has_lost(WRITTEN);
    let may_forget = event == E::Move || to & 15 == DISCARDED;
    if !may_forget && had.is_some() && had == has && unlearned {
        return Err(Wrong::Unlearned);
    }
    // What comes from another version has the frame that it had there.
    if event != PageEvent::Move && had.is_some() && has.is_some() && had != has {
        return Err(Wrong::OtherFrame);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// A state as the documentation of `page_state` writes it.
    fn code(name: &str) -> Option<u64> {
        let names = ["Absent", "Loading", "LoadingInvalidated", "Loaded", "Dirty", "Failed", "Dropped"];
        let more = ["WritingBack", "WritingBackDiscarded", "Swapped", "SwappingOut", "SwappingIn"];
        names.iter().chain(&more).position(|known| *known == name).map(|code| code as u64)
    }

    /// The events of a column. A page table may say at any look that a page was written.
    fn events(column: &str) -> Option<&'static [PageEvent]> {
        Some(match column {
            "touch for reading" => &[E::Read],
            "touch for writing" => &[E::Write],
            "load done" => &[E::LoadDone],
            "load failed" => &[E::LoadFailed],
            "drop (release, invalidate)" => &[E::Drop],
            "evict" => &[E::Evict, E::Noted],
            "store" => &[E::Store],
            "store done" => &[E::StoreDone],
            "store failed" => &[E::StoreFailed],
            "mark" => &[E::Mark, E::Noted],
            "discard" => &[E::Discard],
            "flush failed" => &[E::NotDurable],
            _ => return None,
        })
    }

    /// Where a page in a state gets to by some events, at once or when all CPUs were waited for.
    fn reached(from: u64, events: &[PageEvent]) -> Vec<u64> {
        let step = |from: u64, events: &[PageEvent]| -> Vec<u64> {
            let leads = |row: &&(&[Shape], &[PageEvent], Shape)| {
                row.0.iter().any(|shape| shape.code == from)
                    && row.1.iter().any(|event| events.contains(event))
            };
            TABLE.iter().filter(leads).map(|row| row.2.code).collect()
        };
        let mut reached = step(from, events);
        for at in reached.clone() {
            reached.extend(step(at, &[E::Forgotten]));
        }
        reached
    }

    fn quoted(text: &str) -> impl Iterator<Item = &str> {
        text.split('`').skip(1).step_by(2)
    }

    #[test]
    fn the_table_says_what_the_documentation_of_the_states_says() {
        let (mut columns, mut cells) = (Vec::new(), 0);
        for line in include_str!("../page_state.rs").lines() {
            let Some(row) = line.strip_prefix("//! | ") else { continue };
            let row: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
            if row[0] == "state" {
                columns = row;
                // The third table has the steps between, of states that have no name of their own.
                if columns.contains(&"all CPUs were waited for") {
                    break;
                }
                continue;
            }
            let Some(from) = quoted(row[0]).next().and_then(code) else { continue };
            for (column, cell) in columns.iter().zip(&row).skip(1) {
                let events = events(column).expect("each column is an event");
                if *cell == "-" {
                    assert_eq!(reached(from, &events[..1]), [], "{column} of {}", row[0]);
                }
                if cell.starts_with("like") {
                    continue;
                }
                for to in quoted(cell).filter_map(code).filter(|to| *to != from) {
                    assert!(reached(from, events).contains(&to), "{column} of {}: {cell}", row[0]);
                    cells += 1;
                }
            }
        }
        assert!(cells >= 20, "only {cells} cells were understood");
    }

    #[test]
    fn every_event_has_its_number() {
        for (number, event) in PageEvent::all().enumerate() {
            assert_eq!(PageEvent::from_number(number as u8), Some(event));
            assert_eq!(event as usize, number);
        }
        assert_eq!(PageEvent::from_number(19), None);
    }
}
