//! How versions end: those that nobody shows any more, and a past that is merged with the one descendant it has left.

use super::{Settled, VersionId, Versions};
use crate::frame::Moment;
use crate::page_index_map::PageIndexMap;
use crate::page_state::PageEntry;
use crate::{OutOfMemory, PageEvent};

impl Versions {
    /// A mapping less shows a version. When it was the last, the version ends, and what it had is the caller's.
    #[must_use = "its frames are to be freed"]
    pub(crate) fn remove_user(&mut self, id: VersionId) -> Option<Ended> {
        self.at_mut(id.place).users -= 1;
        self.end_unused(id)
    }

    /// Ends a version that has no users.
    #[must_use = "its frames are to be freed"]
    pub(crate) fn end_unused(&mut self, id: VersionId) -> Option<Ended> {
        (self.at(id.place).users == 0).then(|| self.end(id.place))
    }

    /// Ends a past that nobody goes on from.
    #[must_use = "its frames are to be freed"]
    pub(crate) fn end_childless(&mut self, past: u32) -> Option<Ended> {
        let version = self.versions.get(past as usize)?.as_ref()?;
        (version.users == 0 && version.children == [None; 2]).then(|| self.end(past))
    }

    fn end(&mut self, place: u32) -> Ended {
        let version = self.versions[place as usize].take().expect("it was just there");
        if let Some(parent) = version.parent {
            self.relink(parent, place, None);
        }
        Ended { pages: version.pages, past: version.parent }
    }

    /// A past that has one child left, and is settled before `is_over`, may be merged with it: the child's place.
    pub(crate) fn only_child(&self, past: u32, is_over: impl Fn(Moment) -> bool) -> Option<u32> {
        let version = self.versions.get(past as usize)?.as_ref()?;
        let over = matches!(version.settled, Settled::At(moment) if is_over(moment));
        match version.children {
            [Some(child), None] | [None, Some(child)] if over => Some(child),
            _ => None,
        }
    }

    /// Merges a past with its only child: moves up to `most` pages from the smaller to the larger of the two, and gives
    /// those that nobody sees any more to `unseen`. True when all are moved and the past is gone. When `ended` is over,
    /// no CPU sees pages of the past any more for whom the other child was.
    ///
    /// # Errors
    /// When there is no memory for the index; each page is where it was, or where it belongs.
    pub(crate) fn merge(
        &mut self,
        past: u32,
        child: u32,
        most: usize,
        ended: Moment,
        mut unseen: impl FnMut(PageEntry),
    ) -> Result<bool, OutOfMemory> {
        let mut above = self.versions[past as usize].take().expect("links lead to versions");
        let mut below = self.versions[child as usize].take().expect("links lead to versions");
        below.merged = below.merged.max(ended);
        let up = below.pages.len() < above.pages.len();
        let (from, to) =
            if up { (&mut below.pages, &mut above.pages) } else { (&mut above.pages, &mut below.pages) };
        let mut result = Ok(from.is_empty());
        for _ in 0..most {
            let Some((index, entry)) = from.next_used(0..u64::MAX) else { break };
            let other = to.get(index);
            if up || other == PageEntry::ABSENT {
                if let Err(error) = to.make_room(index) {
                    result = Err(error);
                    break;
                }
                to.set(index, PageEvent::Move, entry);
                if other != PageEntry::ABSENT {
                    unseen(other);
                }
            } else {
                unseen(entry);
            }
            from.set(index, PageEvent::Move, PageEntry::ABSENT);
            result = Ok(from.is_empty());
        }
        if result == Ok(true) {
            if up {
                core::mem::swap(&mut above.pages, &mut below.pages);
            }
            below.parent = above.parent;
            if let Some(parent) = below.parent {
                self.relink(parent, past, Some(child));
            }
        } else {
            self.versions[past as usize] = Some(above);
        }
        self.versions[child as usize] = Some(below);
        result
    }
}

/// A version that nobody shows any more.
pub(crate) struct Ended {
    /// What it had of its own.
    pub(crate) pages: PageIndexMap,
    /// What was above it.
    pub(crate) past: Option<u32>,
}
