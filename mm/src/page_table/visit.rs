//! All entries of a range, holes and tables too.

use core::ops::{ControlFlow, Range};
use core::sync::atomic::Ordering;

use super::{PageTable, Part, Walk};
use crate::page_entry::{PRESENT, RIGHTS, ROOT_LEVEL, USER, WRITABLE, both, is_leaf, protection, target};
use crate::{PhysAddr, Protection, VirtAddr};

/// An entry that was visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visit {
    /// The first address that the entry stands for, which may lie before the range.
    pub start: VirtAddr,
    /// Its level: 4 in the root, 1 for a page of 4 KiB.
    pub level: u32,
    /// Whether the range has all that the entry stands for: then all entries below it were visited.
    pub whole: bool,
    /// What it holds.
    pub found: Found,
}

/// What an entry holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing.
    Hole,
    /// A page.
    Page(Walk),
    /// It points to a table.
    Table {
        /// Where the table is.
        address: PhysAddr,
        /// What may be done below it, taking all levels down to here together.
        protection: Protection,
    },
}

impl PageTable {
    /// Visits the entries of a range in the order of addresses, those below an entry before it. A page or a hole is one
    /// visit, however large. It ends early when `visit` breaks, with what that says. Not from interrupt handlers.
    pub fn for_each<B>(
        &self,
        range: Range<VirtAddr>,
        mut visit: impl FnMut(Visit) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for half in [Part::LOWER_HALF, Part::UPPER_HALF] {
            if let Some(part) = Part::new(&range).and_then(|part| part.within(half)) {
                self.visit_part(part, &mut visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The same for a part that lies in one half.
    pub(super) fn visit_part<B>(
        &self,
        part: Part,
        visit: &mut impl FnMut(Visit) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.visit_table(self.root, ROOT_LEVEL, part, WRITABLE | USER, visit)
    }

    /// Visits what is below a table, where the levels above allow `rights`. The depth is that of the levels.
    fn visit_table<B>(
        &self,
        table: PhysAddr,
        level: u32,
        part: Part,
        rights: u64,
        visit: &mut impl FnMut(Visit) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for index in part.indexes(level) {
            let entry = self.entries(table)[index].load(Ordering::Relaxed);
            let piece = part.piece(level, index);
            let found = if entry & PRESENT == 0 {
                Found::Hole
            } else if is_leaf(entry, level) {
                Found::Page(Walk::of(entry, level, rights, 0))
            } else {
                let rights = both(rights, entry & RIGHTS);
                self.visit_table(target(entry), level - 1, piece, rights, visit)?;
                Found::Table { address: target(entry), protection: protection(rights) }
            };
            let start = VirtAddr::truncated(piece.start_of_entry(level));
            visit(Visit { start, level, whole: piece.is_whole(level), found })?;
        }
        ControlFlow::Continue(())
    }
}
