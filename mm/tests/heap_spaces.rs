//! A heap that is full at every possible point of the calls that place and move mappings: an error for the one who asked,
//! nothing changed, and nothing left behind.

mod common;
mod limited_heap;

use common::cpus::{Busy, poll_once};
use common::shown::RW;
use common::{Machine, PAGE, address, page, range};
use executor::host::block_on_cpus;
use limited_heap::{FULL, now, until_enough, use_up_nodes, with_heap};
use mm::{
    Access, Advice, Denial, FaultOutcome, Hardware, ManualObject, MapError, OutOfMemory, Placement,
    Protection, StrError, TouchError, VmObject,
};

const BASE: u64 = 0x40_0000;

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

#[test]
fn a_stack_without_heap_is_an_error_and_one_that_cannot_grow_stays_as_it_is() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let (_, refused) = until_enough(
        || space.set_stack(range(address(BASE), 16), 1, RW),
        |why| assert_eq!((why, space.stats().mappings), (MapError::NoMemory, 0)),
    );
    assert!(refused >= 4, "an object, a version, and two notes of the mapping: {refused}");
    now(machine.write(&space, at(15), 1)).unwrap();
    now(machine.write(&space, at(12), 1)).unwrap();
    let free = machine.free();
    let fault = machine.fault(at(3), Access::Write);
    let grow = || match now(space.resolve(fault)) {
        FaultOutcome::Resolved => Ok(()),
        FaultOutcome::Denied(why) => Err(why),
    };
    // Growing is one thing, the page's place in the private memory another.
    let (_, refused) = until_enough(grow, |why| {
        assert_eq!((why, machine.free()), (Denial::OutOfMemory, free));
        assert!([4, 13].contains(&space.stats().mapped_pages));
        assert_eq!(now(machine.read(&space, at(12))), Ok(1));
    });
    assert!(refused >= 2, "two notes of the mapping: {refused}");
    assert_eq!(space.stats().mapped_pages, 13);
}

#[test]
fn a_remapping_without_heap_is_an_error_and_changes_nothing() {
    let to = Placement::Fixed(address(at(100)));
    // A part in the middle, of two mappings; longer; and shorter.
    for (pages, needed) in [(4, 4), (6, 6), (2, 4)] {
        let machine = Machine::new(100);
        let space = machine.user_space();
        let object = VmObject::zero(machine.memory, 8);
        space.map(&object, page(0), 4, RW, Placement::Fixed(address(at(0)))).unwrap();
        space.map_anonymous(4, RW, Placement::Fixed(address(at(4)))).unwrap();
        for index in 0..8 {
            now(machine.write(&space, at(index), index)).unwrap();
        }
        // What the processor itself needs of the host's heap is there.
        machine.processor.invalidate(space.root(), address(at(0)));
        let before = space.stats();
        let remap = || now(space.remap(range(address(at(2)), 4), pages, to));
        let (start, refused) = until_enough(remap, |why| {
            let after = space.stats();
            assert_eq!(why, MapError::NoMemory);
            assert_eq!((after.mapped_pages, after.resident_pages), (before.mapped_pages, 8));
            for index in 0..8 {
                assert_eq!(machine.try_read(space.root(), at(index)), Some(index));
            }
        });
        assert!(refused >= needed, "{pages}: {refused}");
        assert_eq!((start, space.stats().mapped_pages), (address(at(100)), 4 + pages));
        assert_eq!(now(machine.read(&space, at(101))), Ok(3));
        now(space.protect(range(start, pages), Protection::READ.for_user())).unwrap();
    }
}

#[test]
fn touching_and_reading_without_heap_are_errors_that_name_the_page() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    // Two pages, whose places are far from each other: each needs the heap.
    space.map_anonymous(100, RW, Placement::Fixed(address(at(0)))).unwrap();
    now(space.touch(range(address(at(63)), 1), Access::Write, None)).unwrap();
    let _nodes = use_up_nodes(machine.memory);
    let touch = || now(space.touch(range(address(at(63)), 2), Access::Write, None));
    let (_, refused) = until_enough(touch, |why| {
        assert_eq!(why, TouchError::Denied { page: address(at(64)), why: Denial::OutOfMemory });
    });
    assert!(refused > 0);
    let zero = VmObject::zero(machine.memory, 1);
    space.map(&zero, page(0), 1, RW, Placement::Fixed(address(at(100)))).unwrap();
    now(space.copy_out(at(100) - 2, b"xx")).unwrap();
    let _more_nodes = use_up_nodes(machine.memory);
    let read = || now(space.copy_str(at(100) - 2, &mut [0; 8]));
    let (length, refused) = until_enough(read, |why| {
        assert_eq!(why, StrError::Denied { address: at(100), why: Denial::OutOfMemory });
    });
    assert!(refused > 0);
    assert_eq!(length, 2);
    let mut told = [false; 2];
    with_heap(FULL, || space.resident(address(at(63)), &mut told)).unwrap();
    assert_eq!(told, [true; 2]);
}

#[test]
fn populating_without_heap_is_an_error_that_names_the_page_and_what_was_mapped_stays() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let zero = VmObject::zero(machine.memory, 1);
    space.map_anonymous(100, RW, Placement::Fixed(address(at(0)))).unwrap();
    space.map(&zero, page(0), 1, RW, Placement::Fixed(address(at(100)))).unwrap();
    // Private pages far from each other, and one of an object: each has a place of its own.
    let ranges = [range(address(at(63)), 2), range(address(at(100)), 1)];
    now(space.populate(range(address(at(63)), 1), None)).unwrap();
    let mut here = 1;
    for range in ranges {
        let _nodes = use_up_nodes(machine.memory);
        let populate = || now(space.populate(range.clone(), None));
        let (_, refused) = until_enough(populate, |why| {
            let TouchError::Denied { page, why: Denial::OutOfMemory } = why else { panic!("{why}") };
            assert_eq!(page.as_u64() + PAGE, range.end.as_u64(), "those before the page are there");
            assert_eq!((space.stats().resident_pages, space.stats().mapped_pages), (here, 101));
        });
        assert!(refused > 0, "{range:?}");
        here = space.stats().resident_pages;
    }
    assert_eq!(here, 3);
    // What is there needs no heap.
    with_heap(FULL, || now(space.populate(range(address(at(63)), 2), None))).unwrap();
}

#[test]
fn a_part_of_a_file_without_heap_is_an_error_and_nothing_is_mapped() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let file = VmObject::zero(machine.memory, 4);
    now(file.write(0, &[7; 8192])).unwrap();
    let map = || space.map_part(&file, 8, PAGE, 3 * PAGE, RW, Placement::Fixed(address(at(0) + 8)));
    let (_, refused) = until_enough(map, |why| {
        assert_eq!((why, space.stats().mappings), (MapError::NoMemory, 0));
        assert_eq!(file.stats().mappings, 0);
    });
    assert!(refused >= 9, "two private objects: {refused}");
    // An end of it needs a place of its own at the first touch, also for reading.
    let _nodes = use_up_nodes(machine.memory);
    let touch = || now(space.touch(range(address(at(1)), 1), Access::Read, None));
    let (_, refused) = until_enough(touch, |why| {
        assert_eq!(why, TouchError::Denied { page: address(at(1)), why: Denial::OutOfMemory });
    });
    assert!(refused > 0);
    assert_eq!(now(machine.read(&space, at(1))), Ok(0x0707_0707_0707_0707));
}

#[test]
fn given_frames_without_heap_are_an_error_and_nothing_is_left() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let free = machine.free();
    let (object, refused) = until_enough(
        || ManualObject::try_contiguous(machine.memory, 4, 1),
        |why| assert_eq!((why, machine.free()), (OutOfMemory, free)),
    );
    assert_eq!(refused, 2, "the pages' places and the object");
    let map = || space.map_manual(&object, page(0), 4, RW, Placement::Fixed(address(at(0))));
    let (_, refused) = until_enough(map, |why| {
        assert_eq!((why, space.stats().mappings), (MapError::NoMemory, 0));
    });
    assert!(refused >= 2, "{refused}");
    now(machine.write(&space, at(1), 1)).unwrap();
    // A split of it is refused like others; frames are replaced without heap.
    let protect = || now(space.protect(range(address(at(1)), 2), Protection::READ.for_user()));
    until_enough(protect, |why| assert_eq!((why, space.stats().manual_pages), (MapError::NoMemory, 4)));
    let frame = machine.memory.frames().try_alloc();
    let old = with_heap(FULL, || now(space.remap_manual(address(at(1)), frame)));
    assert!(matches!(old, Ok(Some(_))));
    let touch = || now(space.touch(range(address(at(0)), 4), Access::Read, None));
    with_heap(FULL, touch).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn given_frames_are_replaced_and_taken_back_with_a_full_heap() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let object = ManualObject::try_new(machine.memory, 2).unwrap();
    space.map_manual(&object, page(0), 2, RW, Placement::Fixed(address(at(0)))).unwrap();
    let free = machine.free();
    let replace = |index, frame| with_heap(FULL, || now(object.replace(page(index), frame)));
    let frame = || machine.memory.frames().try_alloc_zeroed();
    assert!(matches!(replace(0, frame()), Ok(None)));
    now(machine.write(&space, at(0), 7)).unwrap();
    let old = replace(0, frame()).unwrap().unwrap();
    assert_eq!((old.as_bytes()[0], now(machine.read(&space, at(0)))), (7, Ok(0)));
    assert!(matches!(replace(0, Some(old)), Ok(Some(_))));
    assert_eq!(now(machine.read(&space, at(0))), Ok(7));
    assert!(matches!(replace(2, frame()), Err(MapError::BeyondObject)));
    assert!(matches!(replace(0, None), Ok(Some(_))));
    assert!(matches!(replace(0, None), Ok(None)));
    assert!(matches!(replace(1, frame()), Ok(None)));
    drop((space, object));
    now(machine.memory.settle());
    assert_eq!(machine.free(), free + 1, "all came back, and the root of the space");
}

#[test]
fn a_replacement_that_a_cpu_still_remembers_is_waited_for_and_given_up_with_a_full_heap() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        let space = machine.user_space();
        let object = ManualObject::try_contiguous(machine.memory, 1, 1).unwrap();
        space.map_manual(&object, page(0), 1, RW, Placement::Fixed(address(at(0)))).unwrap();
        machine.write(&space, at(0), 7).await.unwrap();
        let frames = machine.memory.frames();
        for is_given_up in [false, true] {
            let free = machine.free();
            let new = frames.try_alloc_zeroed();
            let busy = Busy::begin(machine).await;
            assert_eq!(busy.reads(space.root(), at(0)), Some(7));
            let mut replace = Box::pin(object.replace(page(0), new));
            assert!(with_heap(FULL, || poll_once(replace.as_mut())).is_pending());
            if is_given_up {
                with_heap(FULL, || drop(replace));
                busy.end().await;
            } else {
                busy.end().await;
                let old = replace.await.unwrap().unwrap();
                assert_eq!(old.as_bytes()[0], 7);
            }
            // The tables come back, too.
            machine.write(&space, at(0), 7).await.unwrap();
            machine.memory.settle().await;
            assert_eq!(machine.free(), free, "one frame for the other");
        }
    });
}

#[test]
fn advice_without_heap_is_an_error_or_does_nothing() {
    let machine = Machine::new(100);
    let space = machine.user_space();
    let pager = machine.pager();
    let file = VmObject::new(machine.memory, pager.clone(), 8);
    space.map(&file, page(0), 8, RW, Placement::Fixed(address(at(0)))).unwrap();
    let middle = range(address(at(2)), 3);
    let note = || now(space.advise(middle.clone(), Advice::Random));
    let (_, refused) =
        until_enough(note, |why| assert_eq!((why, space.stats().mapped_pages), (MapError::NoMemory, 8)));
    assert!(refused >= 4, "both ends split a mapping: {refused}");
    // Loads that cannot be begun are left out.
    let advise = |advice| {
        let mut future = Box::pin(space.advise(middle.clone(), advice));
        with_heap(FULL, || while poll_once(future.as_mut()).is_pending() {});
    };
    advise(Advice::WillNeed);
    assert_eq!((pager.loads(), file.stats().transfers), (0, 0));
    now(machine.read(&space, at(3))).unwrap();
    advise(Advice::DoNotNeed);
    assert_eq!(file.stats().resident, 0);
}
