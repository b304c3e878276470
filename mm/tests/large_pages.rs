//! Large pages of private memory: who gets one, what splits it, and that nobody can tell it from 512 small ones.

mod common;
mod limited_heap;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use common::cpus::{Busy, poll_once, polls};
use common::shown::RW;
use common::swap::{self, Swapping};
use common::tasks::{Tasks, block_on};
use common::{Machine, PAGE, address, range};
use executor::host::block_on_cpus;
use limited_heap::with_heap;
use mm::{Access, AddressSpace, Advice, FaultOutcome, LargePages, Placement, Protection};
use proptest::prelude::*;

/// Two pieces of 2 MiB, and some pages before and after them.
const BASE: u64 = 0x80_0000 - BEFORE * PAGE;
const BEFORE: u64 = 3;
const PIECE: u64 = 512;
const PAGES: u64 = BEFORE + 2 * PIECE + 5;
const LARGE: u64 = 2 << 20;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

/// The n-th page of the first piece.
fn within(page: u64) -> u64 {
    at(BEFORE + page)
}

fn anonymous(machine: &'static Machine) -> Arc<AddressSpace> {
    machine.memory.set_large_pages(LargePages::Always);
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    space
}

fn page_size(space: &AddressSpace, at: u64) -> Option<u64> {
    space.walk(address(at)).map(|walk| walk.page_size)
}

async fn fork(machine: &'static Machine, space: &AddressSpace) -> Arc<AddressSpace> {
    space.fork(machine.empty_table()).await.unwrap()
}

#[test]
fn a_piece_that_is_written_once_is_one_page_of_zeros_and_makes_no_more_faults() {
    let machine = Machine::new(3000);
    block_on(async {
        let space = anonymous(machine);
        let resident = space.stats().resident_pages;
        machine.write(&space, within(7), 1).await.unwrap();
        assert_eq!(page_size(&space, within(0)), Some(LARGE));
        assert_eq!(space.stats().resident_pages - resident, PIECE);
        let faults = machine.memory.stats().minor_faults;
        for page in 0..PIECE {
            assert_eq!(machine.read(&space, within(page)).await, Ok(u64::from(page == 7)), "{page}");
            machine.write(&space, within(page) + 8, page).await.unwrap();
        }
        assert_eq!(machine.memory.stats().minor_faults, faults);
        // What is not wholly in the mapping is of small pages, and so is what was read first.
        machine.write(&space, at(0), 1).await.unwrap();
        assert_eq!(page_size(&space, at(0)), Some(PAGE));
        machine.read(&space, within(PIECE)).await.unwrap();
        machine.write(&space, within(PIECE + 1), 1).await.unwrap();
        assert_eq!(page_size(&space, within(PIECE + 1)), Some(PAGE));
    });
}

#[test]
fn who_gets_large_pages_is_said_for_the_memory_and_by_advice() {
    let machine = Machine::new(5000);
    block_on(async {
        for (which, advice, size) in [
            (LargePages::Always, Advice::Normal, LARGE),
            (LargePages::Always, Advice::Random, PAGE),
            (LargePages::Advised, Advice::Normal, PAGE),
            (LargePages::Advised, Advice::Huge, LARGE),
            (LargePages::Never, Advice::Huge, PAGE),
        ] {
            let space = anonymous(machine);
            machine.memory.set_large_pages(which);
            space.advise(range(address(BASE), PAGES), advice).await.unwrap();
            machine.write(&space, within(1), 1).await.unwrap();
            assert_eq!(page_size(&space, within(1)), Some(size), "{which:?}, {advice:?}");
        }
    });
}

#[test]
fn without_a_block_to_spare_pages_are_small() {
    let machine = Machine::new(3000);
    block_on(async {
        let frames = machine.memory.frames();
        let space = anonymous(machine);
        let mut kept = Vec::new();
        while frames.stats().free > frames.stats().high + 600 {
            kept.extend(frames.try_alloc());
        }
        // There are enough frames, but no 512 in a row; then there are, but not beside what is to stay free.
        let run = frames.try_alloc_large();
        machine.write(&space, within(0), 1).await.unwrap();
        assert_eq!(page_size(&space, within(0)), Some(PAGE));
        drop(run);
        while frames.stats().free >= frames.stats().high + 512 {
            kept.extend(frames.try_alloc());
        }
        machine.write(&space, within(PIECE), 1).await.unwrap();
        assert_eq!(page_size(&space, within(PIECE)), Some(PAGE));
    });
}

#[test]
fn a_part_that_is_unmapped_or_protected_splits_the_page_and_needs_no_frame_for_it() {
    let machine = Machine::new(3000);
    block_on(async {
        let frames = machine.memory.frames();
        let space = anonymous(machine);
        for piece in [0, PIECE] {
            for page in 0..PIECE {
                machine.write(&space, within(piece + page), piece + page + 1).await.unwrap();
            }
            assert_eq!(page_size(&space, within(piece)), Some(LARGE));
        }
        let kept: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        space.unmap(range(address(within(100)), 10)).await.unwrap();
        assert_eq!(frames.stats().free, 10);
        space.protect(range(address(within(PIECE + 5)), 1), Protection::READ.for_user()).await.unwrap();
        for page in 0..2 * PIECE {
            let word = if (100..110).contains(&page) { None } else { Some(page + 1) };
            assert_eq!(machine.read(&space, within(page)).await.ok(), word, "{page}");
            let may_write = word.is_some() && page != PIECE + 5;
            assert_eq!(machine.write(&space, within(page), page + 1).await.is_ok(), may_write, "{page}");
            assert_eq!(page_size(&space, within(page)), word.map(|_| PAGE), "{page}");
        }
        drop(kept);
    });
}

#[test]
fn a_page_that_is_protected_as_a_whole_stays_large_and_one_that_is_unmapped_gives_all_back() {
    let machine = Machine::new(3000);
    block_on(async {
        let space = anonymous(machine);
        let free = machine.free();
        machine.write(&space, within(3), 5).await.unwrap();
        let piece = || range(address(within(0)), PIECE);
        space.protect(piece(), Protection::READ.for_user()).await.unwrap();
        assert_eq!(page_size(&space, within(3)), Some(LARGE));
        assert!(machine.write(&space, within(3), 6).await.is_err());
        assert_eq!(machine.read(&space, within(3)).await, Ok(5));
        space.unmap(piece()).await.unwrap();
        assert_eq!(page_size(&space, within(3)), None);
        assert_eq!((machine.free(), space.stats().resident_pages), (free, 0));
    });
}

#[test]
fn pages_of_a_large_one_leave_for_swap_one_by_one_and_come_back() {
    let mut scene = Swapping::without_reclaim(3000, 1000);
    scene.machine.memory.set_large_pages(LargePages::Always);
    let space = scene.space(PIECE);
    for page in 0..PIECE {
        assert_eq!(scene.write(&space, page, page + 1), Ok(()));
    }
    assert_eq!(page_size(&space, swap::BASE), Some(LARGE));
    let mut out = 0;
    // At the first look each page counts as used.
    for _ in 0..40 {
        out += scene.swap_out(64);
    }
    assert_eq!((out, space.stats().resident_pages), (PIECE as usize, 0));
    for page in 0..PIECE {
        assert_eq!(scene.read(&space, page), Ok(page + 1));
    }
    drop(space);
    scene.assert_nothing_is_left();
}

#[test]
fn forks_share_a_large_page_until_one_of_them_writes() {
    let machine = Machine::new(5000);
    block_on(async {
        let free = machine.free();
        let space = anonymous(machine);
        for page in [0, 9, PIECE - 1] {
            machine.write(&space, within(page), page + 1).await.unwrap();
        }
        let twin = fork(machine, &space).await;
        assert_eq!(page_size(&space, within(9)), Some(LARGE));
        machine.write(&space, within(9), 100).await.unwrap();
        machine.write(&twin, within(0), 200).await.unwrap();
        for (space, words) in [(&space, [1, 100, PIECE]), (&twin, [200, 10, PIECE])] {
            for (page, word) in [0, 9, PIECE - 1].into_iter().zip(words) {
                assert_eq!(machine.read(space, within(page)).await, Ok(word), "{page}");
            }
        }
        drop(space);
        machine.write(&twin, within(9), 300).await.unwrap();
        assert_eq!(machine.read(&twin, within(9)).await, Ok(300));
        assert_eq!(machine.read(&twin, within(PIECE - 1)).await, Ok(PIECE));
        drop(twin);
        machine.memory.settle().await;
        assert_eq!(machine.free(), free);
    });
}

#[test]
fn two_who_write_to_one_piece_at_once_get_one_page() {
    for order in 0..8u32 {
        let machine = Machine::new(3000);
        let space = anonymous(machine);
        let free = machine.free();
        let mut tasks = Tasks::default();
        let writes = [2, 300].map(|page| {
            let space = space.clone();
            tasks.spawn(async move { machine.write(&space, within(page), page).await })
        });
        let mut turn = 0;
        tasks.run_by(|ready| {
            turn += 1;
            ready[(order >> (turn % 3) & 1) as usize % ready.len()]
        });
        for (write, page) in writes.into_iter().zip([2, 300]) {
            assert_eq!(write.take(), Some(Ok(())));
            assert_eq!(
                block_on({
                    let space = space.clone();
                    async move { machine.read(&space, within(page)).await }
                }),
                Ok(page)
            );
        }
        assert_eq!(page_size(&space, within(0)), Some(LARGE));
        // The page, what is set aside for it, and two tables above it.
        assert_eq!(free - machine.free(), PIECE as usize + 3);
    }
}

#[test]
fn a_fault_that_is_dropped_while_its_page_is_cleared_gives_it_back() {
    let machine = Machine::new(3000);
    let space = anonymous(machine);
    let free = machine.free();
    let mut write = Box::pin(machine.write(&space, within(0), 1));
    assert!(poll_once(write.as_mut()).is_pending());
    assert_eq!(free - machine.free(), PIECE as usize);
    drop(write);
    assert_eq!(machine.free(), free);
}

#[test]
fn a_mapping_that_goes_while_the_page_is_cleared_is_not_shown_it() {
    let machine = Machine::new(3000);
    block_on(async {
        let space = anonymous(machine);
        let mut write = pin!(machine.write(&space, within(0), 1));
        assert!(poll_once(write.as_mut()).is_pending());
        space.unmap(range(address(within(20)), 1)).await.unwrap();
        assert_eq!(write.await, Ok(()));
        assert_eq!((page_size(&space, within(0)), page_size(&space, within(20))), (Some(PAGE), None));
    });
}

#[test]
fn pages_that_come_while_the_page_is_cleared_are_kept_whether_they_are_shown_or_not() {
    let machine = Machine::new(3000);
    block_on(async {
        let space = anonymous(machine);
        let mut write = pin!(machine.write(&space, within(0), 1));
        assert!(poll_once(write.as_mut()).is_pending());
        let bytes = 5u64.to_le_bytes();
        space.copy_out(within(5), &bytes).await.unwrap();
        for protection in [Protection::default(), RW] {
            space.protect(range(address(BASE), PAGES), protection).await.unwrap();
        }
        assert_eq!(page_size(&space, within(5)), None);
        assert_eq!(write.await, Ok(()));
        assert_eq!(
            (machine.read(&space, within(5)).await, page_size(&space, within(0))),
            (Ok(5), Some(PAGE))
        );
    });
}

#[test]
fn a_cpu_that_remembers_the_large_page_is_waited_for_when_a_part_goes() {
    let machine = Machine::with_cpus(3000);
    block_on_cpus(
        2,
        polls(machine, async move {
            let space = anonymous(machine);
            machine.write(&space, within(4), 44).await.unwrap();
            machine.write(&space, within(5), 55).await.unwrap();
            let other = Busy::begin(machine).await;
            assert_eq!(other.reads(space.root(), within(5)), Some(55));
            assert_eq!(other.reads(space.root(), within(4)), Some(44));
            let mut unmap = Box::pin(space.unmap(range(address(within(5)), 1)));
            assert_eq!(poll_once(unmap.as_mut()), Poll::Pending);
            assert_eq!(other.reads(space.root(), within(5)), Some(55), "it may remember");
            other.end().await;
            unmap.await.unwrap();
            assert_eq!(machine.read(&space, within(4)).await, Ok(44));
            assert!(machine.read(&space, within(5)).await.is_err());
        }),
    );
}

#[test]
fn without_heap_pages_are_small_or_the_write_is_denied_and_nothing_is_lost() {
    let machine = Machine::new(3000);
    let mut large = 0;
    for allocations in 0..40 {
        let space = anonymous(machine);
        let free = machine.free();
        let outcome = with_heap(allocations, || {
            let mut fault = pin!(space.resolve(machine.fault(within(9), Access::Write)));
            // It waits for nothing but its next turn.
            (0..100).find_map(|_| match poll_once(fault.as_mut()) {
                Poll::Ready(outcome) => Some(outcome),
                Poll::Pending => None,
            })
        });
        if outcome == Some(FaultOutcome::Resolved) {
            large += usize::from(page_size(&space, within(9)) == Some(LARGE));
            assert_eq!(machine.try_write(space.root(), within(9), 9), Some(()));
            assert_eq!(machine.try_read(space.root(), within(9)), Some(9));
        } else {
            assert_eq!(space.stats().resident_pages, 0);
            assert!(free - machine.free() < 8, "tables may stay");
        }
    }
    assert!((1..40).contains(&large));
}

/// What may happen to three spaces that were forked from each other.
#[derive(Clone, Debug)]
enum Step {
    Write { space: usize, page: u64, value: u64 },
    Read { space: usize, page: u64 },
    Fork { from: usize, to: usize },
    Unmap { space: usize, page: u64, pages: u64 },
    Protect { space: usize, page: u64, pages: u64, write: bool },
}

const SPACES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let space = 0..SPACES;
    let page = prop_oneof![0..PAGES, Just(BEFORE), Just(BEFORE + PIECE - 1), Just(BEFORE + PIECE)];
    let pages = prop_oneof![1..4u64, Just(PIECE), 1..PAGES];
    prop_oneof![
        6 => (space.clone(), page.clone(), 1..1000u64)
            .prop_map(|(space, page, value)| Step::Write { space, page, value }),
        4 => (space.clone(), page.clone()).prop_map(|(space, page)| Step::Read { space, page }),
        1 => (space.clone(), space.clone()).prop_map(|(from, to)| Step::Fork { from, to }),
        1 => (space.clone(), page.clone(), pages.clone())
            .prop_map(|(space, page, pages)| Step::Unmap { space, page, pages }),
        2 => (space, page, pages, any::<bool>())
            .prop_map(|(space, page, pages, write)| Step::Protect { space, page, pages, write }),
    ]
}

/// What a page shows: a word, and whether it may be written.
type Model = Vec<Option<(u64, bool)>>;

fn play(steps: Vec<Step>) {
    let machine = Machine::new(9000);
    block_on(async move {
        // The page of zeros is made for good.
        machine.read(&anonymous(machine), at(0)).await.unwrap();
        machine.memory.settle().await;
        let free = machine.free();
        let mut spaces: Vec<(Arc<AddressSpace>, Model)> =
            (0..SPACES).map(|_| (anonymous(machine), vec![Some((0, true)); PAGES as usize])).collect();
        let clip = |page: u64, pages: u64| (page, pages.min(PAGES - page));
        for step in steps {
            match step {
                Step::Write { space, page, value } => {
                    let (space, model) = &mut spaces[space];
                    let may = matches!(model[page as usize], Some((_, true)));
                    assert_eq!(machine.write(space, at(page), value).await.is_ok(), may, "{page}");
                    if may {
                        model[page as usize] = Some((value, true));
                    }
                }
                Step::Read { space, page } => {
                    let (space, model) = &spaces[space];
                    let word = model[page as usize].map(|(word, _)| word);
                    assert_eq!(machine.read(space, at(page)).await.ok(), word, "{page}");
                }
                Step::Fork { from, to } => {
                    let twin = (fork(machine, &spaces[from].0).await, spaces[from].1.clone());
                    spaces[to] = twin;
                }
                Step::Unmap { space, page, pages } => {
                    let (page, pages) = clip(page, pages);
                    let (space, model) = &mut spaces[space];
                    space.unmap(range(address(at(page)), pages)).await.unwrap();
                    model[page as usize..(page + pages) as usize].fill(None);
                }
                Step::Protect { space, page, pages, write } => {
                    let (page, pages) = clip(page, pages);
                    let (space, model) = &mut spaces[space];
                    let part = &mut model[page as usize..(page + pages) as usize];
                    let all = part.iter().all(Option::is_some);
                    let protection = if write { RW } else { Protection::READ.for_user() };
                    let done = space.protect(range(address(at(page)), pages), protection).await;
                    assert_eq!(done.is_ok(), all);
                    if all {
                        part.iter_mut().flatten().for_each(|(_, may)| *may = write);
                    }
                }
            }
        }
        for (space, model) in &spaces {
            for (page, shown) in (0..).zip(model) {
                assert_eq!(machine.read(space, at(page)).await.ok(), shown.map(|(word, _)| word), "{page}");
            }
        }
        drop(spaces);
        machine.memory.settle().await;
        assert_eq!(machine.free(), free);
    });
}

proptest! {
    #![proptest_config(common::seed::config(48))]

    #[test]
    fn large_pages_show_what_small_ones_would(steps in prop::collection::vec(step(), 1..40)) {
        play(steps);
    }
}
