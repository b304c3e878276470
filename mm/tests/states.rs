//! The table of page states and events, cell by cell.

mod common;

use std::sync::Arc;

use common::cpus::{Busy, poll_once};
use common::tasks::{Handle, Tasks, block_on};
use common::{Machine, PAGE, content, page};
use executor::host::block_on_cpus;
use mm::{
    AddressSpace, Denial, PageError, PageState, Placement, Protection, TestPager, VirtAddr, VmObject, reclaim,
};

/// A page of a held-back pager, brought into a state.
struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    space: Arc<AddressSpace>,
    start: VirtAddr,
    tasks: Tasks,
    /// Who waits since the page is loading.
    waiter: Option<Handle<Result<u64, Denial>>>,
    /// Free frames before anything happened to the page.
    free: usize,
}

/// What a page looks like from outside, without frame numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Absent,
    Loading,
    Invalidated,
    Loaded,
    Dirty,
    Failed,
}
use Seen::*;

const PAGED: [Seen; 6] = [Absent, Loading, Invalidated, Loaded, Dirty, Failed];

impl Scene {
    fn new(state: Seen) -> Self {
        let machine = Machine::new(200);
        let pager = machine.pager();
        let object = VmObject::new(machine.memory, pager.clone(), 1);
        Self::with(machine, pager, object).brought_to(state)
    }

    fn zero(state: Seen) -> Self {
        let machine = Machine::new(200);
        let object = VmObject::zero(machine.memory, 1);
        Self::with(machine, machine.pager(), object).brought_to(state)
    }

    fn with(machine: &'static Machine, pager: Arc<TestPager>, object: Arc<VmObject>) -> Self {
        pager.hold();
        let space = machine.window();
        // The tables exist before the frames are counted.
        let tables = VmObject::zero(machine.memory, 1);
        let start = space.map(&tables, page(0), 1, Protection::READ_WRITE, Placement::Anywhere).unwrap();
        let (faulting, all) = (space.clone(), common::range(start, 1));
        block_on(async move {
            machine.read(&faulting, start.as_u64()).await.unwrap();
            faulting.unmap(all).await.unwrap();
        });
        drop(tables);
        space.map(&object, page(0), 1, Protection::READ_WRITE, Placement::Fixed(start)).unwrap();
        let free = machine.free();
        Self { machine, pager, object, space, start, tasks: Tasks::default(), waiter: None, free }
    }

    fn brought_to(mut self, state: Seen) -> Self {
        match state {
            Absent => {}
            Loading => self.waiter = Some(self.read()),
            Invalidated => {
                self.waiter = Some(self.read());
                drop(self.object.invalidate(page(0)));
            }
            Loaded => {
                let reader = self.read();
                self.pager.release(page(0));
                self.tasks.run();
                assert!(reader.is_done());
            }
            Dirty => {
                let writer = self.write(7);
                self.pager.release(page(0));
                self.tasks.run();
                assert!(writer.is_done());
            }
            Failed => {
                let reader = self.read();
                self.fail_load();
                assert!(matches!(reader.take(), Some(Err(Denial::Io { .. }))));
            }
        }
        assert_eq!(self.seen(), state);
        self
    }

    fn seen(&self) -> Seen {
        match self.object.state(page(0)) {
            PageState::Absent => Absent,
            PageState::Loading => Loading,
            PageState::LoadingInvalidated => Invalidated,
            PageState::Loaded { .. } => Loaded,
            PageState::Dirty { .. } => Dirty,
            PageState::Failed => Failed,
        }
    }

    fn read(&mut self) -> Handle<Result<u64, Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64());
        let handle = self.tasks.spawn(async move { machine.read(&space, at).await });
        self.tasks.run();
        handle
    }

    fn write(&mut self, value: u64) -> Handle<Result<(), Denial>> {
        let (machine, space, at) = (self.machine, self.space.clone(), self.start.as_u64());
        let handle = self.tasks.spawn(async move { machine.write(&space, at, value).await });
        self.tasks.run();
        handle
    }

    fn end_load(&mut self) {
        assert!(self.pager.release(page(0)), "a load is under way");
        self.tasks.run();
    }

    fn fail_load(&mut self) {
        self.pager.fail(None, 1, PageError::Io);
        self.end_load();
    }

    /// What the page table allows: nothing, reading, writing.
    fn shown(&self) -> Option<bool> {
        self.space.walk(self.start).map(|walk| walk.protection.write)
    }
}

#[test]
fn touching_an_absent_or_failed_page_starts_one_load() {
    for state in [Absent, Failed] {
        for write in [false, true] {
            let mut scene = Scene::new(state);
            let before = scene.pager.loads();
            if write {
                drop(scene.write(1));
            } else {
                drop(scene.read());
            }
            assert_eq!((scene.seen(), scene.pager.loads() - before), (Loading, 1), "{state:?}");
            assert_eq!((scene.shown(), scene.machine.free()), (None, scene.free));
        }
    }
}

#[test]
fn touching_an_absent_zero_page_makes_it_dirty_at_once() {
    for write in [false, true] {
        let mut scene = Scene::zero(Absent);
        let done = if write { scene.write(1).is_done() } else { scene.read().take() == Some(Ok(0)) };
        assert!(done);
        assert_eq!((scene.seen(), scene.shown(), scene.pager.loads()), (Dirty, Some(true), 0));
        assert_eq!(scene.machine.free(), scene.free - 1);
    }
}

#[test]
fn touching_a_page_that_is_loading_waits_with_the_others() {
    for state in [Loading, Invalidated] {
        for write in [false, true] {
            let mut scene = Scene::new(state);
            let done = if write { scene.write(1).is_done() } else { scene.read().is_done() };
            assert!(!done);
            assert_eq!((scene.seen(), scene.pager.loads()), (state, 1));
        }
    }
}

#[test]
fn reading_a_loaded_page_shows_it_read_only() {
    let mut scene = Scene::new(Loaded);
    assert_eq!(scene.read().take(), Some(Ok(content(0))));
    assert_eq!((scene.seen(), scene.shown()), (Loaded, Some(false)));
}

#[test]
fn writing_a_loaded_page_makes_it_dirty() {
    let mut scene = Scene::new(Loaded);
    assert!(scene.write(3).is_done());
    assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(true)));
    assert_eq!(scene.machine.memory.frames().stats().clean, 0);
}

#[test]
fn touching_a_dirty_page_shows_it_writable() {
    for write in [false, true] {
        let mut scene = Scene::new(Dirty);
        let (space, all) = (scene.space.clone(), common::range(scene.start, 1));
        // Hidden first, so that the touch is a fault.
        block_on(async move {
            space.protect(all.clone(), Protection::default()).await.unwrap();
            space.protect(all, Protection::READ_WRITE).await.unwrap();
        });
        assert_eq!(scene.shown(), None);
        if write {
            assert!(scene.write(8).is_done());
        } else {
            assert_eq!(scene.read().take(), Some(Ok(7)));
        }
        assert_eq!((scene.seen(), scene.shown()), (Dirty, Some(true)));
    }
}

#[test]
fn a_load_that_is_done_makes_the_page_loaded() {
    let mut scene = Scene::new(Loading);
    scene.end_load();
    assert_eq!(scene.seen(), Loaded);
    assert_eq!(scene.waiter.take().and_then(|waiter| waiter.take()), Some(Ok(content(0))));
    assert_eq!(scene.machine.memory.frames().stats().clean, 1);
}

#[test]
fn a_load_that_fails_makes_the_page_failed() {
    let mut scene = Scene::new(Loading);
    scene.fail_load();
    assert_eq!((scene.seen(), scene.machine.free()), (Failed, scene.free));
    let denied = Denial::Io { page: page(0), error: PageError::Io };
    assert_eq!(scene.waiter.take().and_then(|waiter| waiter.take()), Some(Err(denied)));
}

#[test]
fn an_invalidated_load_is_thrown_away_however_it_ends() {
    for fails in [false, true] {
        let mut scene = Scene::new(Invalidated);
        scene.tasks.kill(scene.waiter.as_ref().unwrap());
        if fails {
            scene.fail_load();
        } else {
            scene.end_load();
        }
        assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free), "fails: {fails}");
        // And with someone who waits, the page is loaded again.
        let mut scene = Scene::new(Invalidated);
        if fails {
            scene.fail_load();
        } else {
            scene.end_load();
        }
        assert_eq!((scene.seen(), scene.pager.loads()), (Loading, 2), "fails: {fails}");
    }
}

#[test]
fn dropping_a_page_leaves_nothing_of_it() {
    for state in PAGED {
        let mut scene = Scene::new(state);
        drop(scene.object.release(page(0)..page(1)));
        let expected = if matches!(state, Loading | Invalidated) { Invalidated } else { Absent };
        assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (expected, None, scene.free));
        // A processor that remembered the page would read the old bytes here.
        if expected == Absent {
            let reader = scene.read();
            assert_eq!(scene.seen(), Loading, "{state:?}");
            scene.end_load();
            assert_eq!(reader.take(), Some(Ok(content(0))));
        }
    }
    for state in [Absent, Dirty] {
        let mut scene = Scene::zero(state);
        drop(scene.object.release(page(0)..page(1)));
        assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free));
        assert_eq!(scene.read().take(), Some(Ok(0)));
    }
}

#[test]
fn eviction_takes_loaded_pages_only() {
    for state in PAGED {
        let scene = Scene::new(state);
        let freed = block_on(reclaim(scene.machine.memory, usize::MAX));
        let expected = if state == Loaded { (1, Absent, None) } else { (0, state, scene.shown()) };
        assert_eq!((freed, scene.seen(), scene.shown()), expected);
        let frames = usize::from(state == Dirty);
        assert_eq!(scene.machine.free(), scene.free - frames, "{state:?}");
    }
    let scene = Scene::zero(Dirty);
    assert_eq!((block_on(reclaim(scene.machine.memory, usize::MAX)), scene.seen()), (0, Dirty));
}

#[test]
fn an_evicted_page_is_loaded_again_by_a_processor_that_remembered_it() {
    let mut scene = Scene::new(Loaded);
    assert_eq!(scene.read().take(), Some(Ok(content(0))));
    assert_eq!(block_on(reclaim(scene.machine.memory, 1)), 1);
    let reader = scene.read();
    assert_eq!(scene.seen(), Loading);
    scene.end_load();
    assert_eq!(reader.take(), Some(Ok(content(0))));
    assert_eq!(scene.start.as_u64() % PAGE, 0);
}

/// Runs the future of a test about two CPUs, with a scene that was made when there was only one.
fn on_two_cpus<T: Future>(scene: Scene, test: impl FnOnce(Scene) -> T) {
    block_on_cpus(2, test(scene));
}

/// A clean page that reclaim has taken out of the page tables, while another CPU may still use it.
async fn leaving(mut scene: Scene, then: impl FnOnce(&mut Scene)) -> (Scene, usize) {
    let busy = Busy::begin(scene.machine).await;
    let mut reclaiming = Box::pin(reclaim(scene.machine.memory, 1));
    assert!(poll_once(reclaiming.as_mut()).is_pending());
    assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Loaded, None, scene.free - 1));
    then(&mut scene);
    busy.end().await;
    let freed = reclaiming.await;
    (scene, freed)
}

#[test]
fn a_leaving_page_goes_when_all_cpus_were_waited_for() {
    on_two_cpus(Scene::new(Loaded), |scene| async {
        let (scene, freed) = leaving(scene, |_| ()).await;
        assert_eq!((freed, scene.seen(), scene.shown(), scene.machine.free()), (1, Absent, None, scene.free));
    });
}

#[test]
fn touching_a_leaving_page_shows_the_same_frame_and_keeps_it() {
    for write in [false, true] {
        on_two_cpus(Scene::new(Loaded), |scene| async move {
            let expected = if write { (Dirty, Some(true)) } else { (Loaded, Some(false)) };
            let (scene, freed) = leaving(scene, |scene| {
                let frame = scene.object.state(page(0)).frame();
                let done = if write {
                    scene.write(1).is_done()
                } else {
                    scene.read().take() == Some(Ok(content(0)))
                };
                assert!(done);
                assert_eq!((scene.seen(), scene.shown()), expected);
                assert_eq!(scene.object.state(page(0)).frame(), frame);
            })
            .await;
            assert_eq!((freed, scene.seen(), scene.shown()), (0, expected.0, expected.1));
            assert_eq!((scene.pager.loads(), scene.machine.free()), (1, scene.free - 1));
        });
    }
}

#[test]
fn evicting_a_leaving_page_changes_nothing() {
    on_two_cpus(Scene::new(Loaded), |scene| async {
        let (scene, freed) = leaving(scene, |scene| {
            let mut second = Box::pin(reclaim(scene.machine.memory, 1));
            assert!(poll_once(second.as_mut()).is_pending());
            assert_eq!((scene.seen(), scene.machine.free()), (Loaded, scene.free - 1));
        })
        .await;
        assert_eq!((freed, scene.seen(), scene.machine.free()), (1, Absent, scene.free));
    });
}

#[test]
fn a_leaving_page_whose_eviction_is_gone_is_evicted_by_the_next() {
    on_two_cpus(Scene::new(Loaded), |scene| async move {
        let busy = Busy::begin(scene.machine).await;
        assert!(poll_once(std::pin::pin!(reclaim(scene.machine.memory, 1))).is_pending());
        busy.end().await;
        assert_eq!((scene.seen(), scene.shown()), (Loaded, None));
        assert_eq!(reclaim(scene.machine.memory, 1).await, 1);
        assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free));
    });
}

#[test]
fn dropping_a_leaving_page_is_not_undone_by_its_eviction() {
    on_two_cpus(Scene::new(Loaded), |scene| async {
        let (scene, freed) = leaving(scene, |scene| {
            drop(scene.object.release(page(0)..page(1)));
            assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free - 1));
        })
        .await;
        // It was dropped after the eviction began to wait.
        scene.machine.memory.settle().await;
        assert_eq!((freed, scene.seen(), scene.machine.free()), (0, Absent, scene.free));
    });
}

/// A page that was dropped, while another CPU may still use its frame.
async fn dropped(mut scene: Scene, then: impl FnOnce(&mut Scene)) -> Scene {
    let busy = Busy::begin(scene.machine).await;
    let object = scene.object.clone();
    drop(object.release(page(0)..page(1)));
    let quarantined = |scene: &Scene| scene.machine.memory.frames().stats().quarantined;
    assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Absent, None, scene.free - 1));
    assert_eq!((quarantined(&scene), object.stats().resident), (1, 0));
    then(&mut scene);
    assert_eq!((scene.seen(), scene.shown(), scene.machine.free()), (Absent, None, scene.free - 1));
    busy.end().await;
    while !scene.tasks.all_done() && scene.seen() == Absent {
        executor::yield_now().await;
        scene.tasks.run();
    }
    scene.machine.memory.settle().await;
    assert_eq!(quarantined(&scene), 0);
    scene
}

#[test]
fn touching_a_dropped_page_waits_for_all_cpus() {
    for state in [Loaded, Dirty] {
        for write in [false, true] {
            on_two_cpus(Scene::new(state), |scene| async move {
                let mut scene = dropped(scene, |scene| {
                    let done = if write { scene.write(1).is_done() } else { scene.read().is_done() };
                    assert!(!done);
                })
                .await;
                assert_eq!((scene.seen(), scene.pager.loads()), (Loading, 2));
                scene.end_load();
                let expected = if write { Dirty } else { Loaded };
                assert_eq!((scene.seen(), scene.machine.free()), (expected, scene.free - 1));
            });
        }
    }
    on_two_cpus(Scene::zero(Dirty), |scene| async {
        let scene = dropped(scene, |scene| assert!(!scene.read().is_done())).await;
        assert_eq!((scene.seen(), scene.machine.free()), (Dirty, scene.free - 1));
    });
}

#[test]
fn a_dropped_page_is_dropped_and_evicted_without_effect() {
    for state in [Loaded, Dirty] {
        on_two_cpus(Scene::new(state), |scene| async move {
            let mut scene = dropped(scene, |scene| {
                let object = scene.object.clone();
                let mut again = std::pin::pin!(object.release(page(0)..page(1)));
                assert!(poll_once(again.as_mut()).is_pending(), "a CPU still uses the frame");
                assert!(poll_once(std::pin::pin!(reclaim(scene.machine.memory, 1))).is_ready());
            })
            .await;
            assert_eq!((scene.seen(), scene.machine.free()), (Absent, scene.free));
            drop(scene.read());
            assert_eq!(scene.seen(), Loading, "{state:?}");
        });
    }
}
