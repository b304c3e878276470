//! Frames that end at every possible point of what a space can be asked for: whoever lacks one waits, goes on when it
//! comes, and leaves nothing when it is killed.

mod common;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use common::cpus::poll_once;
use common::shown::RW;
use common::tasks::Tasks;
use common::{Machine, PAGE, USER_RANGE, address, content, page, range};
use mm::{
    AddressSpace, Advice, Frame, PageTable, Placement, ReadAhead, SharedMemory, TestStore, VmObject, swap_out,
};

const BASE: u64 = 0x40_0000;
/// Far enough to need tables of its own.
const FAR: u64 = 0x7000_0000_0000;

/// A machine whose tasks can make some spaces: their roots are not waited for.
struct Scene {
    machine: &'static Machine,
    roots: VecDeque<PageTable>,
}

impl Scene {
    fn space(&mut self) -> Arc<AddressSpace> {
        let range = address(USER_RANGE.start)..address(USER_RANGE.end);
        AddressSpace::new(self.machine.memory, self.roots.pop_front().expect("there are roots enough"), range)
    }

    async fn fork(&mut self, space: &AddressSpace) -> Arc<AddressSpace> {
        space.fork(self.roots.pop_front().expect("there are roots enough")).await.unwrap()
    }

    fn file(&self, pages: u64) -> Arc<VmObject> {
        VmObject::new(self.machine.memory, self.machine.pager(), pages)
    }

    async fn writes(&self, space: &AddressSpace, at: u64, value: u64) {
        self.machine.write(space, at, value).await.unwrap();
    }

    async fn finds(&self, space: &AddressSpace, at: u64, value: u64) {
        assert_eq!(self.machine.read(space, at).await, Ok(value), "at {at:#x}");
    }
}

fn at(index: u64) -> u64 {
    BASE + index * PAGE
}

fn placed(at: u64) -> Placement {
    Placement::Fixed(address(at))
}

type Scenario = fn(Scene) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Both sides of a fork write, and one ends before the other.
async fn fork(mut scene: Scene) {
    let memory = SharedMemory::try_new(scene.machine.memory, 2).unwrap();
    let parent = scene.space();
    parent.map_anonymous(3, RW, placed(at(0))).unwrap();
    parent.map_shared(&memory, page(0), 2, RW, placed(FAR)).unwrap();
    scene.writes(&parent, at(0), 1).await;
    scene.writes(&parent, at(1), 2).await;
    let child = scene.fork(&parent).await;
    scene.finds(&child, at(0), 1).await;
    scene.writes(&parent, at(0), 3).await;
    scene.writes(&child, at(1), 4).await;
    scene.writes(&child, at(2), 5).await;
    scene.writes(&child, FAR, 6).await;
    scene.finds(&parent, at(1), 2).await;
    scene.finds(&parent, FAR, 6).await;
    drop(parent);
    scene.writes(&child, at(0), 7).await;
    scene.finds(&child, at(1), 4).await;
}

/// Private memory and a file move, grow and shrink.
async fn remap(mut scene: Scene) {
    let space = scene.space();
    space.map_anonymous(2, RW, placed(at(0))).unwrap();
    space.map(&scene.file(4), page(0), 2, RW, placed(at(2))).unwrap();
    for index in 0..4 {
        scene.writes(&space, at(index), index).await;
    }
    assert_eq!(space.remap(range(address(at(1)), 2), 2, placed(FAR)).await, Ok(address(FAR)));
    scene.finds(&space, FAR, 1).await;
    scene.finds(&space, FAR + PAGE, 2).await;
    let moved = FAR + 0x1_0000_0000;
    assert_eq!(space.remap(range(address(at(3)), 1), 2, placed(moved)).await, Ok(address(moved)));
    scene.finds(&space, moved, 3).await;
    assert_eq!(space.remap(range(address(at(0)), 1), 3, placed(moved + PAGE * 8)).await.map(drop), Ok(()));
    scene.writes(&space, moved + PAGE * 10, 5).await;
    space.remap(range(address(moved + PAGE * 8), 3), 1, placed(moved + PAGE * 8)).await.unwrap();
    scene.finds(&space, moved + PAGE * 8, 0).await;
}

/// A stack grows page by page, over a table's end, and so does its fork's.
async fn set_stack(mut scene: Scene) {
    let (top, pages) = (FAR + 4 * PAGE, 16);
    let space = scene.space();
    space.set_stack(range(address(top - pages * PAGE), pages), 1, RW).unwrap();
    for down in 1..8 {
        scene.writes(&space, top - down * PAGE, down).await;
    }
    let twin = scene.fork(&space).await;
    scene.writes(&twin, top - 12 * PAGE, 12).await;
    scene.writes(&space, top - 9 * PAGE, 9).await;
    scene.finds(&twin, top - 7 * PAGE, 7).await;
    scene.finds(&twin, top - 9 * PAGE, 0).await;
}

/// Pages of a file are read, and copied when they are written, loaded before or not.
async fn map_private(mut scene: Scene) {
    let (file, space) = (scene.file(4), scene.space());
    space.map_private(&file, page(0), 4, RW, placed(at(0))).unwrap();
    scene.finds(&space, at(0), content(0)).await;
    scene.writes(&space, at(0), 1).await;
    scene.writes(&space, at(1), 2).await;
    let twin = scene.fork(&space).await;
    scene.writes(&twin, at(1), 3).await;
    scene.finds(&space, at(1), 2).await;
    scene.finds(&twin, at(2), content(2)).await;
    file.release(page(0)..page(4)).await;
    scene.writes(&space, at(2), 4).await;
    scene.finds(&twin, at(0), 1).await;
}

/// Both ends of a part of a file are cut by their first touch, and the pages after it are zeros.
async fn map_part(mut scene: Scene) {
    let (file, space) = (scene.file(4), scene.space());
    space.map_part(&file, 8, PAGE * 2, PAGE * 4, RW, placed(at(0) + 8)).unwrap();
    scene.finds(&space, at(0), 0).await;
    scene.finds(&space, at(0) + 8, content(0)).await;
    scene.finds(&space, at(1), content(1)).await;
    scene.finds(&space, at(2), content(2)).await;
    scene.finds(&space, at(2) + 8, 0).await;
    scene.writes(&space, at(1), 1).await;
    scene.writes(&space, at(3), 2).await;
    scene.finds(&space, at(4), 0).await;
}

/// Advice never waits for a frame; what it could not begin is loaded by the touch.
async fn advise(mut scene: Scene) {
    let (file, space) = (scene.file(8), scene.space());
    space.map(&file, page(0), 8, RW, placed(at(0))).unwrap();
    space.map_anonymous(512, RW, placed(FAR)).unwrap();
    space.advise(range(address(FAR), 512), Advice::Huge).await.unwrap();
    let told = poll_once(pin!(space.advise(range(address(at(0)), 8), Advice::WillNeed)));
    assert_eq!(told, Poll::Ready(Ok(())), "whatever memory there is");
    for index in 0..8 {
        scene.finds(&space, at(index), content(index)).await;
    }
    scene.writes(&space, at(2), 1).await;
    for advice in [Advice::Cold, Advice::DoNotNeed, Advice::WillNeed, Advice::Sequential] {
        space.advise(range(address(at(0)), 8), advice).await.unwrap();
    }
    scene.finds(&space, at(2), 1).await;
    scene.finds(&space, at(7), content(7)).await;
    scene.writes(&space, FAR, 2).await;
}

/// An overlay's pages are its own when they are written, and the base's when they are marked.
async fn overlay(mut scene: Scene) {
    let (base, space) = (scene.file(4), scene.space());
    let overlay = VmObject::overlay(base.clone());
    let all = || page(0)..page(4);
    space.map(&overlay, page(0), 4, RW, placed(at(0))).unwrap();
    space.map(&base, page(0), 4, RW, placed(FAR)).unwrap();
    scene.finds(&space, at(0), content(0)).await;
    scene.writes(&space, at(0), 1).await;
    scene.writes(&space, at(1), 2).await;
    scene.finds(&space, FAR, content(0)).await;
    overlay.store_and_mark(all()).await.unwrap();
    scene.finds(&space, FAR + PAGE, 2).await;
    scene.writes(&space, at(1), 3).await;
    overlay.discard(all()).await;
    scene.finds(&space, at(1), 2).await;
    overlay.release(all()).await;
    scene.finds(&space, at(0), 1).await;
}

/// Pages of a space and its fork leave for the disk and come back, zeros among them.
async fn swap_in(mut scene: Scene) {
    let memory = scene.machine.memory;
    let space = scene.space();
    space.map_anonymous(4, RW, placed(at(0))).unwrap();
    for index in 0..3 {
        scene.writes(&space, at(index), index).await;
    }
    let twin = scene.fork(&space).await;
    swap_out(memory, usize::MAX).await;
    scene.finds(&space, at(2), 2).await;
    scene.writes(&twin, at(2), 3).await;
    scene.finds(&twin, at(1), 1).await;
    scene.writes(&space, at(0), 4).await;
    swap_out(memory, usize::MAX).await;
    drop(space);
    scene.finds(&twin, at(0), 0).await;
    scene.writes(&twin, at(1), 5).await;
    scene.finds(&twin, at(2), 3).await;
}

/// Each with its name.
const ALL: [(&str, Scenario); 8] = [
    ("fork", |scene| Box::pin(fork(scene))),
    ("remap", |scene| Box::pin(remap(scene))),
    ("set_stack", |scene| Box::pin(set_stack(scene))),
    ("map_private", |scene| Box::pin(map_private(scene))),
    ("map_part", |scene| Box::pin(map_part(scene))),
    ("advise", |scene| Box::pin(advise(scene))),
    ("overlay", |scene| Box::pin(overlay(scene))),
    ("swap_in", |scene| Box::pin(swap_in(scene))),
];

const ROOTS: usize = 2;

/// A machine with swap, whose page of zeros is there.
fn machine() -> &'static Machine {
    let machine = Machine::new(64);
    machine.memory.swap_on(TestStore::new(64)).unwrap();
    // Also the last frame: whoever reads ahead finds none at some point, too.
    machine.memory.set_read_ahead(ReadAhead::WhileFree);
    let warm = machine.user_space();
    common::tasks::block_on(async move {
        warm.map_anonymous(1, RW, placed(at(0))).unwrap();
        machine.read(&warm, at(0)).await.unwrap();
        drop(warm);
        machine.memory.settle().await;
    });
    machine
}

/// The roots, and what is taken so that so many frames are left.
fn begin(machine: &'static Machine, frames: usize) -> (Scene, Vec<Frame>) {
    let roots = (0..ROOTS).map(|_| machine.empty_table()).collect();
    let held = (frames..machine.free()).map(|_| machine.memory.frames().try_alloc().unwrap()).collect();
    (Scene { machine, roots }, held)
}

fn run(tasks: &mut Tasks) {
    tasks.run();
    while executor::poll_one() {}
    tasks.run();
}

fn assert_nothing_is_left(name: &str, machine: &'static Machine, free: usize) {
    let memory = machine.memory;
    common::tasks::block_on(async move { memory.settle().await });
    let stats = memory.frames().stats();
    let swap = memory.swap_stats().unwrap();
    assert_eq!((stats.free, stats.waiting, stats.anonymous), (free, 0, 0), "{name}");
    assert_eq!((swap.used_slots, swap.writing), (0, 0), "{name}");
}

#[test]
fn whoever_lacks_a_frame_waits_and_leaves_nothing_when_killed() {
    for (name, scenario) in ALL {
        let machine = machine();
        let mut finished = 0;
        for frames in 0..48 {
            let (scene, held) = begin(machine, frames);
            let mut tasks = Tasks::default();
            let thread = tasks.spawn(scenario(scene));
            run(&mut tasks);
            if thread.take().is_some() {
                finished += 1;
            } else {
                assert!(machine.memory.frames().stats().waiting > 0, "{name} with {frames} frames");
            }
            tasks.kill(&thread);
            run(&mut tasks);
            assert_nothing_is_left(name, machine, frames + ROOTS);
            drop(held);
        }
        assert!((1..44).contains(&finished), "{name} ends with enough frames, and only then: {finished}");
    }
}

#[test]
fn whoever_waits_goes_on_as_frames_come_one_by_one() {
    for (name, scenario) in ALL {
        let machine = machine();
        let (scene, mut held) = begin(machine, 0);
        let mut tasks = Tasks::default();
        let thread = tasks.spawn(scenario(scene));
        let mut given = 0;
        run(&mut tasks);
        while !thread.is_done() {
            held.pop().unwrap_or_else(|| panic!("{name}: fewer frames are enough"));
            given += 1;
            run(&mut tasks);
        }
        assert_nothing_is_left(name, machine, given + ROOTS);
    }
}
