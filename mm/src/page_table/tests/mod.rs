//! Page tables against flat models, over memory with real table bytes in it.

mod copies;
mod frames;
mod near;
mod order;
mod random;
mod run;

use core::ops::Range;
use std::boxed::Box;

use super::*;
use crate::address::PAGE_BYTES;
use crate::window::arena;
use crate::{Frame, Hardware, MemoryType, PageSize, Protection, page_entry};

const BASE: u64 = 0x40_0000_0000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const RW: Protection = Protection::READ_WRITE.for_user();
const READ: Protection = Protection::READ.for_user();

/// A processor with a largest page of its own.
struct Sized(PageSize);

impl Hardware for Sized {
    fn invalidate(&self, _: PhysAddr, _: VirtAddr) {}
    fn forget(&self) {}
    fn forget_space(&self, _: PhysAddr) {}
    fn largest_page(&self) -> PageSize {
        self.0
    }
}

/// Tables of the lower half over this many frames.
fn tables(frames: usize, largest: PageSize) -> PageTable {
    let (window, usable) = arena::arena(frames);
    let hardware = Box::leak(Box::new(Sized(largest)));
    let memory = Box::leak(Box::new(Memory::new(window, &[usable], hardware)));
    PageTable::new_user(memory, PhysAddr::new(0)).expect("room for a root")
}

fn at(address: u64) -> VirtAddr {
    VirtAddr::truncated(address)
}

fn range(start: u64, bytes: u64) -> Range<VirtAddr> {
    at(start)..at(start + bytes)
}

fn segment(table: &mut PageTable, start: u64, bytes: u64, physical: u64) -> Result<(), MapError> {
    table.map_segment(range(start, bytes), PhysAddr::new(physical), RW, MemoryType::WriteBack)
}

impl PageTable {
    /// Enters a frame at a page as a fault does.
    pub(crate) fn map(
        &mut self,
        page: VirtAddr,
        frame: u64,
        protection: Protection,
        spare: &mut Option<Frame>,
    ) -> Result<(), NeedsFrame> {
        let rights = page_entry::rights(protection);
        if self.map_if_open(page, None, frame, rights) {
            return Ok(());
        }
        self.map_slowly(page, None, frame, rights, spare)
    }

    /// Goes through the tables by itself, and looks whether each count is right. Returns the tables that there are.
    fn audit(&self) -> u64 {
        fn below(table: &PageTable, at: PhysAddr, level: u32) -> (usize, u64) {
            let (mut present, mut tables) = (0, 0);
            let entries = if level == 4 { UPPER_HALF } else { 512 };
            for entry in &table.entries(at)[..entries] {
                let value = entry.load(Ordering::Relaxed);
                assert!(value == 0 || value & 1 == 1, "what is not present is 0");
                present += usize::from(value & 1 == 1);
                if value & 1 == 1 && level > 1 && value & 128 == 0 {
                    let (counted, more) = below(table, PhysAddr::new(value & 0xf_ffff_ffff_f000), level - 1);
                    assert_eq!(
                        (value >> 52) as usize & 0x3ff,
                        counted,
                        "the count of a table of level {level}"
                    );
                    tables += 1 + more;
                }
            }
            (present, tables)
        }
        let (top, tables) = below(self, self.root, 4);
        assert_eq!((top, tables), (self.top, self.tables));
        tables
    }
}
