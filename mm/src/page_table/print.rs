//! A whole table as text, for reports. Holes are left out; pages in a row with the same rights are one line.
//!
//! ```text
//! 0x0000000000400000..0x0000000000403000        3 x 4 KiB at 0x1a2b000  r-x user
//! 0x0000000000403000..0x0000000000480000      125 x 4 KiB scattered     rw- user
//! 0xffff800000000000..0xffff800040000000        1 x 1 GiB at 0x0        rw- permanent
//! ```

use core::fmt;
use core::ops::ControlFlow;

use super::{Found, PageTable, Part, Walk};
use crate::{MemoryType, Protection};

/// Pages in a row that are told in one line.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    pages: u64,
    /// The first page; its accessed and dirty bits do not count.
    first: Walk,
    /// Whether their frames do not follow each other.
    scattered: bool,
}

impl Run {
    /// Adds a page if it belongs there. Pages of objects have frames as they come; so runs that began without order may
    /// go on without it.
    fn add(&mut self, start: u64, page: &Walk) -> bool {
        let like = |page: &Walk| (page.page_size, page.protection, page.memory_type, page.permanent);
        let bytes = self.pages * self.first.page_size;
        if self.start + bytes != start || like(page) != like(&self.first) {
            return false;
        }
        let follows = self.first.address.as_u64() + bytes == page.address.as_u64();
        if !follows && (self.pages > 1 && !self.scattered || page.page_size > 4096) {
            return false;
        }
        self.scattered |= !follows;
        self.pages += 1;
        true
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Walk { page_size, protection, memory_type, permanent, .. } = self.first;
        let end = self.start.wrapping_add(self.pages * page_size);
        let size = match page_size {
            0x1000 => "4 KiB",
            0x20_0000 => "2 MiB",
            _ => "1 GiB",
        };
        write!(f, "{:#018x}..{end:#018x} {:8} x {size} ", self.start, self.pages)?;
        if self.scattered {
            f.write_str("scattered")?;
        } else {
            write!(f, "at {}", self.first.address)?;
        }
        let Protection { write, execute, user, .. } = protection;
        write!(f, " r{}{}", if write { 'w' } else { '-' }, if execute { 'x' } else { '-' })?;
        f.write_str(if user { " user" } else { "" })?;
        f.write_str(match memory_type {
            MemoryType::WriteBack => "",
            MemoryType::WriteCombining => " write-combining",
            MemoryType::Uncached => " uncached",
        })?;
        f.write_str(if permanent { " permanent" } else { "" })?;
        f.write_str("\n")
    }
}

/// The half that the tables are for, a line for each run of pages that are alike.
impl fmt::Display for PageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut run: Option<Run> = None;
        let half = if self.kernel { Part::UPPER_HALF } else { Part::LOWER_HALF };
        let end = self.visit_part(half, &mut |visit| {
            let Found::Page(page) = visit.found else { return ControlFlow::Continue(()) };
            let start = visit.start.as_u64();
            if run.as_mut().is_some_and(|run| run.add(start, &page)) {
                return ControlFlow::Continue(());
            }
            let told = run.replace(Run { start, pages: 1, first: page, scattered: false });
            match told.map_or(Ok(()), |run| run.fmt(f)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        end.break_value().map_or(Ok(()), Err)?;
        run.map_or(Ok(()), |run| run.fmt(f))
    }
}
