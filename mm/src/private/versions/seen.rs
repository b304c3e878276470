//! Who sees a page of the past.

use super::{VersionId, Versions};
use crate::page_state::PageEntry;

/// Looks at versions before it is taken for granted that somebody still sees a page.
const LOOKS: usize = 64;

impl Versions {
    /// Whether somebody else than a version sees a page that a past above it has. May say so where nobody does. Part
    /// of each copy.
    #[inline(always)]
    pub(crate) fn is_seen_by_others(&self, id: VersionId, past: u32, index: u64) -> bool {
        let mut looks = LOOKS;
        let mut below = id.place;
        while below != past {
            let above = self.at(below).parent.expect("the past is above");
            let [first, second] = self.at(above).children;
            let other = if first == Some(below) { second } else { first };
            if other.is_some_and(|other| self.is_seen_from(other, index, &mut looks)) {
                return true;
            }
            below = above;
        }
        false
    }

    /// Whether a version at or below `top` sees what is above `top`.
    #[inline]
    fn is_seen_from(&self, top: u32, index: u64, looks: &mut usize) -> bool {
        let version = self.at(top);
        // Most were not forked since.
        if version.children == [None; 2] && *looks > 0 {
            *looks -= 1;
            return version.pages.get(index) == PageEntry::ABSENT;
        }
        self.is_seen_below(top, index, looks)
    }

    /// The same where there may be some below: in order, each before its children, and not below those that have a page of
    /// their own.
    #[inline(never)]
    fn is_seen_below(&self, top: u32, index: u64, looks: &mut usize) -> bool {
        let mut place = top;
        loop {
            let Some(left) = looks.checked_sub(1) else { return true };
            *looks = left;
            let version = self.at(place);
            if version.pages.get(index) == PageEntry::ABSENT {
                match version.children[0].or(version.children[1]) {
                    None => return true,
                    Some(child) => {
                        place = child;
                        continue;
                    }
                }
            }
            // The next one that is not below this.
            loop {
                if place == top {
                    return false;
                }
                let parent = self.at(place).parent.expect("it is below the top");
                match self.at(parent).children {
                    [Some(first), Some(second)] if first == place => {
                        place = second;
                        break;
                    }
                    _ => place = parent,
                }
            }
        }
    }
}
