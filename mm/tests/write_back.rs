//! Dirty pages are stored in the background, the oldest first, and writes wait for that above the dirty limit.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::tasks::{Handle, Tasks, block_on};
use common::{Machine, PAGE, content, page};
use executor::{host, time};
use mm::write_back::{WriteBackStats, clean_oldest, writer};
use mm::{FlushError, PageError, PageState, StoreError, TestPager, VmObject, reclaimer};

const PAGES: u64 = 128;

struct Scene {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::new(400);
        let pager = machine.pager();
        let object = VmObject::new(machine.memory, pager.clone(), PAGES);
        Self { machine, pager, object }
    }

    /// Its page 0 is dirty, and stores wait.
    fn that_does_not_answer() -> Self {
        let scene = Self::new();
        scene.write(0, 7);
        scene.pager.hold();
        scene
    }

    fn write(&self, index: u64, word: u64) {
        let object = self.object.clone();
        block_on(async move { object.write(index * PAGE, &word.to_le_bytes()).await.unwrap() });
    }

    fn dirty(&self) -> Vec<u64> {
        (0..PAGES).filter(|&at| matches!(self.object.state(page(at)), PageState::Dirty { .. })).collect()
    }

    fn backing(&self, index: u64) -> u64 {
        u64::from_le_bytes(self.pager.backing(page(index))[..8].try_into().unwrap())
    }

    fn stats(&self) -> WriteBackStats {
        self.machine.memory.write_back_stats()
    }

    /// Writes pages in a task each, in this order.
    fn writers(&self, tasks: &mut Tasks, pages: impl IntoIterator<Item = u64>) -> Vec<Handle<()>> {
        let write = |index: u64| {
            let object = self.object.clone();
            tasks.spawn(async move { object.write(index * PAGE, &[1]).await.unwrap() })
        };
        pages.into_iter().map(write).collect()
    }
}

fn finished(writers: &[Handle<()>]) -> Vec<bool> {
    writers.iter().map(Handle::is_done).collect()
}

#[test]
fn dirty_pages_are_counted_until_they_are_clean_or_gone() {
    let scene = Scene::new();
    (0..4).for_each(|index| scene.write(index, 7));
    scene.write(0, 8);
    assert_eq!((scene.stats().dirty, scene.machine.memory.frames().stats().clean), (4, 0));
    let object = scene.object.clone();
    block_on(async move { object.store_and_mark(page(0)..page(1)).await.unwrap() });
    assert_eq!((scene.stats().dirty, scene.machine.memory.frames().stats().clean), (3, 1));
    drop(scene.object.discard(page(1)..page(2)));
    assert_eq!(scene.stats().dirty, 2);
    let object = scene.object.clone();
    block_on(async move { object.flush().await.unwrap() });
    assert_eq!((scene.stats().dirty, scene.machine.memory.frames().stats().clean), (0, 3));
    let zero = VmObject::zero(scene.machine.memory, 1);
    block_on(async move { zero.write(0, &[1]).await.unwrap() });
    assert_eq!(scene.stats().dirty, 0, "nobody can store it");
}

#[test]
fn the_oldest_page_is_stored_first_and_those_beside_it_with_it() {
    let scene = Scene::new();
    scene.pager.set_pages_at_once(8);
    let ranges = VmObject::new(scene.machine.memory, scene.pager.clone(), PAGES);
    let write = |index: u64| {
        let object = ranges.clone();
        block_on(async move { object.write(index * PAGE, &[1]).await.unwrap() });
    };
    for index in [50, 9, 20, 51, 10, 49] {
        write(index);
    }
    drop(scene.pager.take_asked());
    let memory = scene.machine.memory;
    assert_eq!(block_on(clean_oldest(memory, 1)), 3);
    assert_eq!(scene.pager.take_asked(), [(49, 3)]);
    write(9);
    assert_eq!(block_on(clean_oldest(memory, 3)), 3);
    assert_eq!(scene.pager.take_asked(), [(9, 2), (20, 1)]);
    assert_eq!(block_on(clean_oldest(memory, 1)), 0);
}

#[test]
fn a_page_that_is_written_while_it_is_stored_stays_dirty_and_is_the_youngest() {
    let scene = Scene::new();
    let memory = scene.machine.memory;
    scene.write(0, 7);
    scene.write(5, 7);
    scene.pager.hold();
    let mut tasks = Tasks::default();
    let turn = tasks.spawn(clean_oldest(memory, 2));
    tasks.run();
    scene.write(0, 8);
    while scene.pager.held() > 0 {
        assert!(scene.pager.release_store(page(0)) || scene.pager.release_store(page(5)));
        tasks.run();
    }
    assert_eq!(turn.take(), Some(1));
    assert_eq!((scene.dirty(), scene.backing(5)), (vec![0], 7));
    let pager = scene.pager.clone();
    block_on(async move { pager.release_all().await });
    let rest = block_on(clean_oldest(memory, 2));
    assert_eq!((rest, scene.dirty(), scene.backing(0)), (1, vec![], 8));
}

#[test]
fn a_page_that_waits_to_be_stored_again_keeps_its_place_when_its_neighbour_is_marked() {
    let scene = Scene::new();
    let memory = scene.machine.memory;
    let store = |index: u64| {
        let object = scene.object.clone();
        block_on(async move { object.store(page(index)..page(index + 1)).await.unwrap() });
    };
    let clean_one = || block_on(async move { clean_oldest(memory, 1).await });
    scene.write(0, 7);
    store(0);
    scene.write(0, 8);
    scene.write(1, 7);
    store(1);
    assert_eq!((clean_one(), scene.dirty()), (1, vec![0]));
    scene.write(40, 7);
    scene.write(1, 8);
    store(1);
    assert_eq!((clean_one(), scene.dirty()), (1, vec![0, 40]));
    assert_eq!((clean_one(), scene.dirty()), (1, vec![40]), "the oldest");
    assert_eq!(scene.backing(0), 8);
}

#[test]
fn writes_wait_above_the_limit_and_go_on_in_order_as_pages_become_clean() {
    let scene = Scene::new();
    let memory = scene.machine.memory;
    (0..4).for_each(|index| scene.write(index * 8, 7));
    (0..12).for_each(|index| {
        let object = scene.object.clone();
        block_on(async move { object.read((64 + index) * PAGE, &mut [0]).await.unwrap() });
    });
    memory.set_dirty_limit(4);
    let mut tasks = Tasks::default();
    let _writer = tasks.spawn(async move { writer(memory).await });
    scene.pager.hold();
    tasks.run();
    let writers = scene.writers(&mut tasks, 64..67);
    tasks.run();
    assert_eq!((finished(&writers), scene.stats().parked), (vec![false; 3], 3));
    let again = scene.writers(&mut tasks, [0]);
    tasks.run();
    assert_eq!(finished(&again), [true], "the page is dirty as it is");
    assert!(scene.pager.release_store(page(0)));
    tasks.run();
    // It was written since.
    assert_eq!(finished(&writers), [false; 3]);
    assert!(scene.pager.release_store(page(8)));
    tasks.run();
    assert_eq!((finished(&writers), scene.stats().parked), (vec![true, false, false], 2));
    assert!(scene.pager.release_store(page(16)));
    tasks.run();
    assert_eq!(finished(&writers), [true, true, false]);
    memory.set_dirty_limit(100);
    tasks.run();
    assert_eq!(finished(&writers), [true; 3]);
}

#[test]
fn a_write_that_waited_and_finds_its_page_dirty_gives_its_turn_to_the_next() {
    let scene = Scene::new();
    let memory = scene.machine.memory;
    (0..2).for_each(|index| scene.write(index * 8, 7));
    for index in [64, 65] {
        let object = scene.object.clone();
        block_on(async move { object.read(index * PAGE, &mut [0]).await.unwrap() });
    }
    memory.set_dirty_limit(2);
    let mut tasks = Tasks::default();
    let _writer = tasks.spawn(async move { writer(memory).await });
    // Nothing becomes clean, so nobody is resumed for that.
    scene.pager.hold();
    tasks.run();
    let writers = scene.writers(&mut tasks, [64, 64, 65]);
    tasks.run();
    assert_eq!(finished(&writers), [false; 3]);
    // Room for two.
    memory.set_dirty_limit(4);
    tasks.run();
    assert_eq!((finished(&writers), scene.stats().parked), (vec![true; 3], 0));
}

#[test]
fn a_pager_that_cannot_store_parks_nobody_for_ever_and_the_writer_tries_again_later() {
    let scene = Scene::new();
    let memory = scene.machine.memory;
    (0..4).for_each(|index| scene.write(index * 8, 7));
    scene.pager.fail_stores(None, 1_000_000, PageError::Io);
    memory.set_dirty_limit(4);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(writer(memory));
        // There is a limit from the writer's first turn on.
        executor::yield_now().await;
        let object = scene.object.clone();
        for index in 64..80 {
            time::timeout(Duration::from_millis(100), object.write(index * PAGE, &[1]))
                .await
                .unwrap()
                .unwrap();
        }
        let before = scene.pager.stores();
        time::sleep(Duration::from_secs(60)).await;
        let tries = scene.pager.stores() - before;
        assert!((20..=80 * 20).contains(&tries), "{tries} stores in a minute, of 20 pages");
        scene.pager.fail_stores(None, 0, PageError::Io);
        time::sleep(Duration::from_secs(2)).await;
        assert!(scene.stats().dirty <= 2, "{:?}", scene.stats());
        background.abort();
        let error = StoreError { page: page(0), error: PageError::Io };
        assert_eq!(object.flush().await, Err(FlushError::Page(error)), "it is kept for the flush");
        assert_eq!(object.flush().await, Ok(()));
    });
}

#[test]
fn pages_that_cannot_be_stored_keep_no_others_from_becoming_clean() {
    let scene = Scene::new();
    for index in 0..64 {
        scene.write(index, 7);
        if index % 2 == 0 {
            scene.pager.fail_stores(Some(page(index)), 1_000_000, PageError::Io);
        }
    }
    assert_eq!(block_on(clean_oldest(scene.machine.memory, 64)), 32);
    assert_eq!(scene.dirty(), (0..64).step_by(2).collect::<Vec<_>>());
    assert_eq!(scene.pager.stores(), 64, "each was tried once");
}

#[test]
fn a_device_that_does_not_answer_ends_the_turn_and_what_it_has_stored_counts_at_the_next() {
    let scene = Scene::that_does_not_answer();
    let memory = scene.machine.memory;
    let _clock = host::simulate_time();
    host::block_on(async {
        for _ in 0..3 {
            let begun = time::now();
            assert_eq!(clean_oldest(memory, 8).await, 1, "it is being stored");
            assert!((1..=50).contains(&begun.elapsed().as_millis()));
        }
        assert!(scene.pager.release_store(page(0)));
        assert_eq!((scene.stats().writing, scene.dirty()), (0, vec![0]));
        assert_eq!(clean_oldest(memory, 8).await, 1);
        assert_eq!((scene.dirty(), scene.pager.stores()), (vec![], 1));
    });
}

#[test]
fn what_is_stored_while_a_turn_waits_for_it_becomes_clean_in_that_turn() {
    let scene = Scene::that_does_not_answer();
    let memory = scene.machine.memory;
    let _clock = host::simulate_time();
    host::block_on(async {
        assert_eq!(clean_oldest(memory, 8).await, 1, "it is being stored");
        let turn = executor::spawn(clean_oldest(memory, 8));
        time::sleep(Duration::from_millis(10)).await;
        assert!(scene.pager.release_store(page(0)));
        assert_eq!(turn.await.unwrap(), 1);
        assert_eq!(scene.dirty(), vec![]);
    });
}

#[test]
fn writes_to_more_pages_than_there_are_frames_go_on_without_a_limit() {
    let scene = Scene::new();
    let machine = scene.machine;
    let pages = 2000;
    let object = VmObject::new(machine.memory, scene.pager.clone(), pages);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = executor::spawn(reclaimer(machine.memory));
        for round in 1..=2u64 {
            for index in 0..pages {
                let mut word = [0; 8];
                object.read(index * PAGE, &mut word).await.unwrap();
                let before = if round == 1 { content(index) } else { index * 10 + 1 };
                assert_eq!(u64::from_le_bytes(word), before, "page {index} in round {round}");
                object.write(index * PAGE, &(index * 10 + round).to_le_bytes()).await.unwrap();
            }
        }
        object.flush().await.unwrap();
        background.abort();
    });
    assert!((0..pages).all(|index| scene.pager.durable(page(index))[..8] == (index * 10 + 2).to_le_bytes()));
    assert!(machine.memory.stats().evictions > 3000);
}
