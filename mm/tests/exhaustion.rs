//! Memory that ends at every possible point: an error or a wait, never a panic, never a leak.

mod common;

use std::sync::Arc;

use common::tasks::Tasks;
use common::{KERNEL_RANGE, Machine, PAGE, USER_RANGE, address, content, page, range};
use mm::{AddressSpace, Denial, OutOfMemory, PageTable, Placement, Protection, VmObject};

const RW: Protection = Protection::READ_WRITE.for_user();
const BASE: u64 = 0x40_0000;
/// Far enough to need tables of its own.
const FAR: u64 = 0x7000_0000_0000;

/// A bit of everything that takes frames. How far it came is in the answer.
async fn scenario(machine: &'static Machine, root: mm::PhysAddr) -> Result<(), Denial> {
    let Ok(table) = PageTable::new_user(machine.memory, root) else { return Err(Denial::OutOfMemory) };
    let space = AddressSpace::new(machine.memory, table, address(USER_RANGE.start)..address(USER_RANGE.end));
    let file = VmObject::new(machine.memory, machine.pager(), 4);
    let lazy = VmObject::zero(machine.memory, 4);
    space.map(&file, page(0), 4, RW, Placement::Fixed(address(BASE))).unwrap();
    space.map(&lazy, page(0), 4, RW, Placement::Fixed(address(FAR))).unwrap();
    assert_eq!(machine.read(&space, BASE).await?, content(0));
    machine.write(&space, FAR, 1).await?;
    machine.write(&space, BASE + PAGE, 2).await?;
    space.copy_out(BASE + 3 * PAGE - 1, &[1, 2]).await?;
    let mut bytes = [0; 2];
    space.copy_in(BASE + 3 * PAGE - 1, &mut bytes).await?;
    assert_eq!(bytes, [1, 2]);
    lazy.write(3 * PAGE - 4, &[1; 8]).await.map_err(|_| Denial::OutOfMemory)?;
    space.protect(range(address(FAR), 4), Protection::READ.for_user()).await.unwrap();
    assert_eq!(machine.read(&space, FAR + 3 * PAGE).await?, u64::from_le_bytes([1, 1, 1, 1, 0, 0, 0, 0]));
    space.unmap(range(address(BASE), 4)).await.unwrap();
    Ok(())
}

/// Leaves this many frames free.
fn leave(machine: &'static Machine, frames: usize) -> Vec<mm::Frame> {
    (frames..machine.free()).map(|_| machine.memory.frames().try_alloc().unwrap()).collect()
}

#[test]
fn whoever_runs_out_of_frames_waits_and_leaves_nothing_when_killed() {
    let machine = Machine::new(64);
    let root = machine.window().root();
    let mut finished = 0;
    for frames in 0..32 {
        let held = leave(machine, frames);
        let mut tasks = Tasks::default();
        let thread = tasks.spawn(scenario(machine, root));
        tasks.run();
        match thread.take() {
            Some(Ok(())) => finished += 1,
            Some(Err(why)) => assert_eq!((why, frames), (Denial::OutOfMemory, 0)),
            None => {
                let waiting = machine.memory.frames().stats().waiting;
                // A load that waits for its frame is a task of the executor.
                assert!(waiting > 0 || executor::has_work(), "{frames} frames");
            }
        }
        tasks.kill(&thread);
        while executor::poll_one() {}
        assert_eq!((machine.free(), machine.memory.frames().stats().waiting), (frames, 0));
        drop(held);
    }
    assert!((1..32).contains(&finished), "the scenario ends with enough frames, and only then");
}

#[test]
fn whoever_waits_goes_on_as_frames_come_one_by_one() {
    let machine = Machine::new(64);
    let root = machine.window().root();
    // One for the root, which is not waited for.
    let mut held = leave(machine, 1);
    let mut tasks = Tasks::default();
    let thread = tasks.spawn(scenario(machine, root));
    let mut given = 0;
    while !thread.is_done() {
        held.pop().expect("fewer frames are enough");
        given += 1;
        tasks.run();
        while executor::poll_one() {}
        tasks.run();
    }
    assert_eq!(thread.take(), Some(Ok(())));
    assert_eq!(machine.free(), given + 1);
}

#[test]
fn a_space_whose_root_or_whose_tables_have_no_room_is_an_error() {
    let machine = Machine::new(64);
    let root = machine.window().root();
    let held = leave(machine, 0);
    assert!(matches!(PageTable::new_user(machine.memory, root), Err(OutOfMemory)));
    assert!(machine.memory.frames().try_alloc_contiguous(1, 1).is_none());
    drop(held);
}

#[test]
fn a_denied_load_for_want_of_memory_says_so() {
    struct Poor;
    impl mm::Pager for Poor {
        fn name(&self) -> &str {
            "poor"
        }
        fn load(&self, request: mm::PageRequest) {
            request.complete(Err(mm::PageError::OutOfMemory));
        }
    }
    let machine = Machine::new(64);
    let space = machine.window();
    let object = VmObject::new(machine.memory, Arc::new(Poor), 1);
    let there = Placement::Fixed(address(KERNEL_RANGE.start));
    space.map(&object, page(0), 1, Protection::READ, there).unwrap();
    let told = common::tasks::block_on(async move { machine.read(&space, KERNEL_RANGE.start).await });
    assert_eq!(told, Err(Denial::OutOfMemory));
}
