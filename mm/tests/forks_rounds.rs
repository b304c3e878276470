//! Ten thousand rounds of fork, writes on both sides and the end of one of them: the last round costs what the tenth did, in
//! memory and in work, and leaves what it left.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, address, content, page};
use mm::{AddressSpace, Placement, VmObject};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 6;
const ROUNDS: u64 = 10_000;
/// The rounds that are compared. What they write to, and where, is the same.
const TENTH: u64 = 9;
const LAST: u64 = ROUNDS - 1 - (ROUNDS - 1 - TENTH) % PAGES;

/// The heap, which counts for each thread what is taken of it.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
}

fn live(allocations: i64, layout: Layout) {
    if !mm_simulator::is_checking() {
        let (count, bytes) = LIVE.get();
        LIVE.set((count + allocations, bytes + allocations * layout.size() as i64));
    }
}

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + u64::from(!mm_simulator::is_checking()));
        live(1, layout);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        live(-1, layout);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Who goes on after a round.
#[derive(Clone, Copy, Debug)]
enum GoesOn {
    Parent,
    Child,
    /// The one after even rounds, the other after odd ones.
    InTurn,
}

/// What a round has cost, and what there is after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Round {
    free_frames: usize,
    live_allocations: i64,
    live_bytes: i64,
    allocations: u64,
    faults: u64,
    retries: u64,
    shootdowns: u64,
    zero_fills: u64,
}

fn at(index: u64) -> u64 {
    BASE + index % PAGES * PAGE
}

async fn round(machine: &'static Machine, parent: &mut Arc<AddressSpace>, number: u64, goes_on: GoesOn) {
    machine.write(parent, at(number * 2), number).await.unwrap();
    let child = parent.fork(machine.empty_table()).await.unwrap();
    machine.write(parent, at(number), number + 1).await.unwrap();
    machine.write(&child, at(number + 1), number + 2).await.unwrap();
    assert_eq!(machine.read(&child, at(number + 1)).await, Ok(number + 2));
    machine.read(parent, at(number + 4)).await.unwrap();
    machine.read(&child, at(number + 5)).await.unwrap();
    let is_even = number.is_multiple_of(2);
    if matches!(goes_on, GoesOn::Child) || matches!(goes_on, GoesOn::InTurn) && !is_even {
        *parent = child;
    }
}

/// All rounds; answers the tenth and the last.
async fn rounds(machine: &'static Machine, mut space: Arc<AddressSpace>, goes_on: GoesOn) -> [Round; 2] {
    let mut compared = [None; 2];
    for number in 0..ROUNDS {
        let (taken, before) = (TAKEN.get(), machine.memory.stats());
        round(machine, &mut space, number, goes_on).await;
        machine.memory.settle().await;
        let (taken, after) = (TAKEN.get() - taken, machine.memory.stats());
        let (live_allocations, live_bytes) = LIVE.get();
        let round = Round {
            free_frames: machine.free(),
            live_allocations,
            live_bytes,
            allocations: taken,
            faults: after.minor_faults + after.major_faults - before.minor_faults - before.major_faults,
            retries: after.retries - before.retries,
            shootdowns: after.shootdowns - before.shootdowns,
            zero_fills: after.zero_fills - before.zero_fills,
        };
        if number == TENTH {
            compared[0] = Some(round);
        } else if number == LAST {
            compared[1] = Some(round);
        }
    }
    compared.map(|round| round.expect("both rounds were played"))
}

#[test]
fn the_last_of_ten_thousand_rounds_costs_and_leaves_what_the_tenth_did_whoever_goes_on() {
    for file in [false, true] {
        for goes_on in [GoesOn::Parent, GoesOn::Child, GoesOn::InTurn] {
            let machine = Machine::new(200);
            let [tenth, last] = block_on(async move {
                let space = machine.user_space();
                let placed = Placement::Fixed(address(BASE));
                if file {
                    let object = VmObject::new(machine.memory, machine.pager(), PAGES);
                    space.map_private(&object, page(0), PAGES, RW, placed).unwrap();
                    assert_eq!(machine.read(&space, at(3)).await, Ok(content(3)));
                } else {
                    space.map_anonymous(PAGES, RW, placed).unwrap();
                }
                rounds(machine, space, goes_on).await
            });
            assert_eq!(tenth, last, "over a file: {file}; {goes_on:?}");
        }
    }
}
