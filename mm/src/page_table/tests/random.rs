//! Random changes against a flat model, with each of the three largest pages.
//!
//! All ranges begin and end at a few borders, chosen where entries of all levels end; so what lies between two borders
//! is the same throughout, and the model is one value for each such cell. (Where a border lies within an entry of some
//! level, the ends of that entry are borders, too: writing is taken from entries as a whole.)

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Where the second root entry begins.
const MIDDLE: u64 = 512 * GIB;
const P: i64 = 0x1000;
const M: i64 = MIB as i64;
const G: i64 = GIB as i64;
/// Distances from `MIDDLE`.
const NEAR: [i64; 11] = [-4 * M, -2 * M - P, -2 * M, -2 * M + P, -P, 0, P, 2 * P, 2 * M - P, 2 * M, 4 * M];
const FAR: [i64; 21] = [
    -2 * G,
    -2 * G + P,
    -2 * G + 2 * M,
    -G - 2 * M,
    -G - P,
    -G,
    -G + P,
    -G + 2 * M,
    -2 * M,
    -P,
    0,
    P,
    2 * M - P,
    2 * M,
    4 * M,
    G - 2 * M,
    G - P,
    G,
    G + 2 * M,
    2 * G - 2 * M,
    2 * G,
];

/// What all pages of a cell show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shown {
    /// Physical less virtual.
    distance: u64,
    protection: Protection,
    memory_type: MemoryType,
    /// The processor has written to the first page.
    dirty: bool,
}

#[derive(Clone, Debug)]
enum Step {
    MapSegment {
        from: usize,
        cells: usize,
        distance: u64,
        protection: Protection,
        memory_type: MemoryType,
    },
    Unmap {
        from: usize,
        cells: usize,
    },
    Protect {
        from: usize,
        cells: usize,
        protection: Protection,
    },
    WriteProtect {
        from: usize,
        cells: usize,
    },
    Tables {
        from: usize,
    },
    /// The rest is about cells of one page.
    Map {
        cell: usize,
        distance: u64,
        protection: Protection,
    },
    UnmapPage {
        cell: usize,
    },
    Restrict {
        cell: usize,
        protection: Protection,
    },
    TakeAccessed {
        cell: usize,
    },
    /// The processor writes to the first page of a cell, if it may.
    Write {
        cell: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (from, cells, cell) = (0..20usize, 1..10usize, 0..20usize);
    let protection = (any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(write, execute, user)| Protection { read: true, write, execute, user });
    let memory_type = prop_oneof![
        Just(MemoryType::WriteBack),
        Just(MemoryType::WriteCombining),
        Just(MemoryType::Uncached)
    ];
    // Congruent for all sizes, for 2 MiB, for 4 KiB; twice the first, so that pages meet their own.
    let distance = prop_oneof![3 => Just(0), 2 => Just(2 * MIB), 1 => Just(0x3000)];
    prop_oneof![
        6 => (from.clone(), cells.clone(), distance.clone(), protection.clone(), memory_type)
            .prop_map(|(from, cells, distance, protection, memory_type)| Step::MapSegment {
                from, cells, distance, protection, memory_type
            }),
        3 => (from.clone(), cells.clone()).prop_map(|(from, cells)| Step::Unmap { from, cells }),
        3 => (from.clone(), cells.clone(), protection.clone())
            .prop_map(|(from, cells, protection)| Step::Protect { from, cells, protection }),
        4 => (from.clone(), cells).prop_map(|(from, cells)| Step::WriteProtect { from, cells }),
        1 => from.prop_map(|from| Step::Tables { from }),
        6 => (cell.clone(), distance, protection.clone())
            .prop_map(|(cell, distance, protection)| Step::Map { cell, distance, protection }),
        2 => cell.clone().prop_map(|cell| Step::UnmapPage { cell }),
        2 => (cell.clone(), protection)
            .prop_map(|(cell, protection)| Step::Restrict { cell, protection }),
        1 => cell.clone().prop_map(|cell| Step::TakeAccessed { cell }),
        4 => cell.prop_map(|cell| Step::Write { cell }),
    ]
}

struct Scene {
    table: PageTable,
    borders: &'static [i64],
    cells: Vec<Option<Shown>>,
}

impl Scene {
    fn border(&self, index: usize) -> u64 {
        MIDDLE.wrapping_add_signed(self.borders[index])
    }

    /// The cells of a range, and the range.
    fn cells(&self, from: usize, cells: usize) -> (Range<usize>, Range<VirtAddr>) {
        let from = from % self.cells.len();
        let end = (from + cells).min(self.cells.len());
        (from..end, at(self.border(from))..at(self.border(end)))
    }

    /// A cell of one page, near to this one, and its page.
    fn page(&self, cell: usize) -> (usize, VirtAddr) {
        let is_page = |cell: &usize| self.border(cell + 1) - self.border(*cell) == PAGE_BYTES;
        let cell = (cell % self.cells.len()..).chain(0..).find(|cell| is_page(&(cell % self.cells.len())));
        let cell = cell.expect("some are") % self.cells.len();
        (cell, at(self.border(cell)))
    }

    fn is_own_page(&self, page: VirtAddr) -> bool {
        self.table.walk(page).is_some_and(|walk| walk.page_size == PAGE_BYTES)
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::MapSegment { from, cells, distance, protection, memory_type } => {
                let (cells, range) = self.cells(from, cells);
                // A gibibyte by small pages takes too long.
                let long = range.end.as_u64() - range.start.as_u64() > 8 * MIB;
                let distance = if long && distance < 2 * MIB { 0 } else { distance };
                let physical = PhysAddr::new(range.start.as_u64() + distance);
                let result = self.table.map_segment(range, physical, protection, memory_type);
                let mut shown = self.cells[cells.clone()].iter().flatten();
                if shown.any(|shown| shown.distance != distance) {
                    assert_eq!(result, Err(MapError::Overlap));
                    return;
                }
                assert_eq!(result, Ok(()));
                for cell in &mut self.cells[cells] {
                    let dirty = cell.is_some_and(|shown| shown.dirty);
                    *cell = Some(Shown { distance, protection, memory_type, dirty });
                }
            }
            Step::Unmap { from, cells } => {
                let (cells, range) = self.cells(from, cells);
                assert_eq!(self.table.unmap_segment(range), Ok(()));
                self.cells[cells].fill(None);
            }
            Step::Protect { from, cells, protection } => {
                let (cells, range) = self.cells(from, cells);
                assert_eq!(self.table.protect_segment(range, protection), Ok(()));
                self.cells[cells].iter_mut().flatten().for_each(|shown| shown.protection = protection);
            }
            Step::WriteProtect { from, cells } => {
                let (cells, range) = self.cells(from, cells);
                let taken = self.table.write_protect(range).expect("it is a range");
                let mut shown = self.cells[cells.clone()].iter().flatten();
                assert!(taken || !shown.any(|shown| shown.protection.write), "it says what it takes");
                self.cells[cells].iter_mut().flatten().for_each(|shown| shown.protection.write = false);
                // Others may have lost the right, too.
                for cell in 0..self.cells.len() {
                    let walk = self.table.walk(at(self.border(cell)));
                    if let (Some(shown), Some(walk)) = (&mut self.cells[cell], walk) {
                        shown.protection.write &= walk.protection.write;
                    }
                }
            }
            Step::Tables { from } => {
                let (_, range) = self.cells(from, 1);
                if range.end.as_u64() - range.start.as_u64() <= 8 * MIB {
                    assert_eq!(self.table.add_tables(range), Ok(()));
                }
            }
            Step::Map { cell, distance, protection } => {
                let (cell, page) = self.page(cell);
                let distance = self.cells[cell].map_or(distance, |shown| shown.distance);
                let frame = (page.as_u64() + distance) / PAGE_BYTES;
                assert_eq!(self.table.map(page, frame, protection, &mut None), Ok(()));
                let dirty = self.cells[cell].is_some_and(|shown| shown.dirty);
                let memory_type = MemoryType::WriteBack;
                self.cells[cell] = Some(Shown { distance, protection, memory_type, dirty });
            }
            Step::UnmapPage { cell } => {
                let (cell, page) = self.page(cell);
                let own = self.is_own_page(page);
                let leaf = self.table.unmap(page);
                assert_eq!(leaf.is_some(), own);
                if let Some(leaf) = leaf {
                    let shown = self.cells[cell].take().expect("it was there");
                    assert_eq!(leaf.frame * PAGE_BYTES, page.as_u64() + shown.distance);
                    assert!(leaf.dirty || !shown.dirty);
                }
            }
            Step::Restrict { cell, protection } => {
                let (cell, page) = self.page(cell);
                let own = self.is_own_page(page);
                let less = self.table.restrict(page, protection);
                if let Some(shown) = &mut self.cells[cell]
                    && own
                {
                    let now = &mut shown.protection;
                    assert!(less || protection.includes(*now));
                    now.write &= protection.write;
                    now.execute &= protection.execute;
                    now.user &= protection.user;
                }
            }
            Step::TakeAccessed { cell } => {
                let (cell, page) = self.page(cell);
                let own = self.is_own_page(page);
                let distance = self.cells[cell].map_or(0, |shown| shown.distance);
                let frame = (page.as_u64() + distance) / PAGE_BYTES;
                assert_eq!(self.table.take_accessed(page, frame).is_some(), own);
                assert!(!own || !self.table.walk(page).is_some_and(|walk| walk.accessed));
            }
            Step::Write { cell } => {
                let cell = cell % self.cells.len();
                let first = self.border(cell);
                if let Some(shown) = &mut self.cells[cell]
                    && shown.protection.write
                {
                    self.table.deepest(first).0.fetch_or(0x60, Ordering::Relaxed);
                    shown.dirty = true;
                }
            }
        }
    }

    fn check(&self, largest: PageSize) {
        let mut resident = 0;
        for (cell, shown) in self.cells.iter().enumerate() {
            let (first, end) = (self.border(cell), self.border(cell + 1));
            let middle = first + (end - first) / 2 / PAGE_BYTES * PAGE_BYTES;
            for page in [first, middle, end - PAGE_BYTES] {
                let walk = self.table.walk(at(page + 5));
                let seen = walk.map(|walk| {
                    let distance = walk.address.as_u64().wrapping_sub(page + 5);
                    (distance, walk.protection, walk.memory_type)
                });
                let wanted = shown.map(|shown| (shown.distance, shown.protection, shown.memory_type));
                assert_eq!(seen, wanted, "{page:#x}");
                assert!(walk.is_none_or(|walk| walk.page_size <= span_of(largest)));
            }
            let dirty = self.table.walk(at(first)).is_some_and(|walk| walk.dirty);
            assert!(dirty || !shown.is_some_and(|shown| shown.dirty), "{first:#x}: a write is forgotten");
            resident += if shown.is_some() { (end - first) / PAGE_BYTES } else { 0 };
        }
        assert_eq!(self.table.resident(), resident);
        self.table.audit();
    }
}

fn span_of(size: PageSize) -> u64 {
    crate::page_entry::span(size.level())
}

fn plays(largest: PageSize, borders: &'static [i64], steps: &[Step]) {
    let table = tables(4096, largest);
    let pool = table.memory.frames();
    let free = pool.stats().free;
    let mut scene = Scene { table, borders, cells: std::vec![None; borders.len() - 1] };
    for step in steps {
        scene.play(step);
        scene.check(largest);
    }
    let all = scene.border(0)..scene.border(borders.len() - 1);
    assert_eq!(scene.table.unmap_segment(at(all.start)..at(all.end)), Ok(()));
    assert_eq!((scene.table.audit(), scene.table.resident()), (0, 0));
    let stats = pool.stats();
    assert_eq!(stats.free + stats.quarantined, free);
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pages_of_4_kib_are_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        plays(PageSize::Size4KiB, &NEAR, &steps);
    }

    #[test]
    fn pages_of_2_mib_are_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        plays(PageSize::Size2MiB, &FAR, &steps);
    }

    #[test]
    fn pages_of_1_gib_are_what_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        plays(PageSize::Size1GiB, &FAR, &steps);
    }
}

#[test]
fn a_segment_takes_the_largest_pages_that_its_ends_and_its_memory_allow() {
    let sizes = |largest, start: u64, bytes, physical| {
        let mut table = tables(600, largest);
        segment(&mut table, start, bytes, physical).expect("room");
        let mut sizes = [0; 3];
        let end = table.for_each(range(start, bytes), |visit| {
            if let Found::Page(_) = visit.found {
                sizes[visit.level as usize - 1] += 1;
            }
            core::ops::ControlFlow::<()>::Continue(())
        });
        assert!(end.is_continue());
        sizes
    };
    let all = 2 * GIB + 2 * MIB + 0x1000;
    assert_eq!(sizes(PageSize::Size1GiB, BASE, all, GIB), [1, 1, 2]);
    assert_eq!(sizes(PageSize::Size1GiB, BASE - 0x1000, all, GIB - 0x1000), [1, 1, 2]);
    assert_eq!(sizes(PageSize::Size2MiB, BASE, all, GIB), [1, 1025, 0]);
    assert_eq!(sizes(PageSize::Size1GiB, BASE, all, GIB + 2 * MIB), [1, 1025, 0]);
    assert_eq!(sizes(PageSize::Size4KiB, BASE, 4 * MIB, GIB), [1024, 0, 0]);
    assert_eq!(sizes(PageSize::Size1GiB, BASE, 4 * MIB, GIB + 0x1000), [1024, 0, 0]);
}
