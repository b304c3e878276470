//! Memory that is out, of which several spaces have something: the largest gives way, and only it.

mod common;

use std::sync::Arc;

use common::cpus::Busy;
use common::victims::{BASE, MARKS, Scene, one_in_swap_and_two_in_memory};
use common::{PAGE, address};
use executor::{host, spawn, yield_now};
use mm::{Access, Denial, FaultOutcome, Protection, reclaimer};

#[test]
fn the_largest_space_gives_way_and_the_others_keep_what_they_have() {
    let scene: &'static Scene = Box::leak(Box::new(Scene::new(200)));
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let small: Vec<_> = (0..3).map(|_| scene.space(20)).collect();
        let hog = scene.space(1000);
        for (space, word) in small.iter().zip(1..) {
            scene.write(space, 0..12, word * 1000).await.unwrap();
        }
        // Others go on writing while it takes all there is, and wait behind it.
        let writers: Vec<_> = small
            .iter()
            .zip(1..)
            .map(|(space, word)| {
                let space = space.clone();
                spawn(async move {
                    while scene.machine.free() > MARKS.low {
                        yield_now().await;
                    }
                    scene.write(&space, 12..20, word * 1000).await
                })
            })
            .collect();
        let kept = hog.clone();
        let denied = scene.write(&kept, 0..1000, 0).await;
        assert_eq!(denied, Err(Denial::NoMapping), "its memory was taken");
        for writer in writers {
            assert_eq!(writer.await.unwrap(), Ok(()));
        }
        let ended = scene.spaces.ended.lock().unwrap().clone();
        assert_eq!(ended.len(), 1, "one victim");
        let (victim, pages) = &ended[0];
        assert!(Arc::ptr_eq(victim, &hog) && *pages > 100, "it had {pages} pages");
        assert_eq!(hog.stats().resident_pages, 0);
        for (space, word) in small.iter().zip(1..) {
            assert!(scene.is_intact(space, 20, word * 1000).await);
        }
        background.abort();
    });
}

#[test]
fn spaces_that_would_end_for_nothing_are_spared_and_who_asks_is_refused() {
    let scene = Scene::new(100);
    let frames = scene.machine.memory.frames();
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let small = scene.space(20);
        scene.write(&small, 0..MARKS.low as u64 - 1, 1000).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        assert!(frames.alloc().await.is_err());
        assert!(scene.spaces.ended.lock().unwrap().is_empty());
        assert!(scene.is_intact(&small, MARKS.low as u64 - 1, 1000).await);
        // With one page more it is worth it.
        let page = small.resolve(scene.machine.fault(BASE + 19 * PAGE, Access::Write)).await;
        assert_eq!(page, FaultOutcome::Denied(Denial::OutOfMemory));
        background.abort();
    });
}

#[test]
fn the_next_victim_is_chosen_when_the_frames_of_the_last_are_back() {
    host::block_on_cpus(2, async {
        let scene = Scene::new(100);
        let frames = scene.machine.memory.frames();
        let (first, second) = (scene.space(40), scene.space(40));
        scene.write(&first, 0..30, 1000).await.unwrap();
        scene.write(&second, 0..20, 2000).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        // Another CPU stands in the middle of a poll, and may still use the pages of the first.
        let busy = Busy::begin(scene.machine).await;
        let waiting: Vec<_> = (0..20).map(|_| spawn(frames.alloc())).collect();
        while scene.spaces.ended.lock().unwrap().is_empty() {
            yield_now().await;
        }
        // Long enough for grace periods to pass, if one could.
        for _ in 0..10_000 {
            yield_now().await;
        }
        assert_eq!(scene.spaces.ended.lock().unwrap().len(), 1);
        assert!(waiting.iter().all(|waiter| !waiter.is_finished()));
        busy.end().await;
        for waiter in waiting {
            assert!(waiter.await.unwrap().is_ok());
        }
        assert_eq!(scene.spaces.ended.lock().unwrap().len(), 1);
        assert!(scene.is_intact(&second, 20, 2000).await);
        background.abort();
    });
}

#[test]
fn a_space_whose_pages_cannot_be_written_to_swap_is_the_largest_all_the_same() {
    let (scene, store) = Scene::with_swap(200, 1000);
    store.fail_writes(usize::MAX);
    let _clock = host::simulate_time();
    host::block_on(async {
        let background = spawn(reclaimer(scene.machine.memory));
        let small = scene.space(40);
        scene.write(&small, 0..40, 1000).await.unwrap();
        let hog = scene.space(1000);
        assert_eq!(scene.write(&hog, 0..1000, 0).await, Err(Denial::NoMapping));
        assert_eq!(scene.ended().len(), 1);
        assert!(Arc::ptr_eq(&scene.ended()[0], &hog));
        assert!(scene.is_intact(&small, 40, 1000).await);
        background.abort();
    });
}

#[test]
fn what_a_space_has_in_swap_counts() {
    let (scene, _store) = Scene::with_swap(150, 60);
    let _clock = host::simulate_time();
    host::block_on(async {
        let hog = scene.space(60);
        scene.write(&hog, 0..60, 1000).await.unwrap();
        while scene.machine.memory.frames().stats().anonymous > 0 {
            scene.machine.forget_translations();
            mm::swap_out(scene.machine.memory, usize::MAX).await;
        }
        assert_eq!(
            (hog.stats().resident_pages, scene.machine.memory.swap_stats().unwrap().free_slots),
            (0, 0)
        );
        // Two that have less, but all of it in memory.
        let spaces = [scene.space(50), scene.space(50)];
        let background = spawn(reclaimer(scene.machine.memory));
        let _taken: Vec<_> = (0..70).map(|_| scene.machine.memory.frames().try_alloc().unwrap()).collect();
        for space in &spaces {
            scene.write(space, 0..50, 2000).await.unwrap();
        }
        assert_eq!(scene.ended().len(), 1);
        assert!(Arc::ptr_eq(&scene.ended()[0], &hog), "its slots are what the others need");
        for space in &spaces {
            assert!(scene.is_intact(space, 50, 2000).await);
        }
        background.abort();
    });
}

#[test]
fn pages_that_are_not_shown_are_counted_wherever_they_are() {
    let (scene, store) = Scene::with_swap(3000, 100);
    store.fail_writes(usize::MAX);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [sparse, dense] = [scene.space(100_000), scene.space(100_000)];
        for pages in [0..600, 1000..1200, 70_000..70_400] {
            scene.write(&sparse, pages, 1000).await.unwrap();
        }
        scene.write(&dense, 0..1199, 2000).await.unwrap();
        for space in [&sparse, &dense] {
            let all = common::range(address(BASE), 100_000);
            space.protect(all, Protection::default()).await.unwrap();
        }
        let background = spawn(reclaimer(scene.machine.memory));
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        let ended = scene.spaces.ended.lock().unwrap().clone();
        assert!(Arc::ptr_eq(&ended[0].0, &sparse));
        assert_eq!(ended[0].1, 1200);
        background.abort();
    });
}

#[test]
fn halves_of_pages_that_lie_far_apart_add_up() {
    let (scene, store) = Scene::with_swap(300, 100);
    store.fail_writes(usize::MAX);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [sparse, dense] = [scene.space(100_000), scene.space(100_000)];
        let machine = scene.machine;
        for page in (0..40).map(|number| number * 1024) {
            scene.write(&sparse, page..page + 1, 1000).await.unwrap();
        }
        let _twin = sparse.fork(machine.empty_table()).await.unwrap();
        scene.write(&dense, 0..15, 2000).await.unwrap();
        for space in [&sparse, &dense] {
            let all = common::range(address(BASE), 100_000);
            space.protect(all, Protection::default()).await.unwrap();
        }
        let background = spawn(reclaimer(machine.memory));
        let _taken: Vec<_> = std::iter::from_fn(|| machine.memory.frames().try_alloc()).collect();
        assert!(machine.memory.frames().alloc().await.is_ok());
        let ended = scene.spaces.ended.lock().unwrap().clone();
        assert!(Arc::ptr_eq(&ended[0].0, &sparse));
        assert_eq!(ended[0].1, 20);
        background.abort();
    });
}

#[test]
fn what_a_space_has_in_swap_does_not_count_where_the_disk_fails() {
    let (scene, store) = Scene::with_swap(150, 1000);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        store.fail_writes(usize::MAX);
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        assert_eq!(scene.ended().len(), 1);
        assert!(Arc::ptr_eq(&scene.ended()[0], &other), "its frames are what is wanted");
        assert!(scene.is_intact(&in_swap, 30, 1000).await);
        assert!(scene.is_intact(&one, 49, 2000).await);
        background.abort();
    });
}

#[test]
fn what_both_sides_of_a_fork_see_counts_half_for_each() {
    let scene = Scene::new(300);
    let _clock = host::simulate_time();
    host::block_on(async {
        let parent = scene.space(1000);
        scene.write(&parent, 0..100, 1000).await.unwrap();
        let twin = parent.fork(scene.machine.empty_table()).await.unwrap();
        scene.spaces.all.lock().unwrap().push(twin.clone());
        // Neither shows what it has, but for this.
        parent.protect(common::range(address(BASE), 1000), Protection::default()).await.unwrap();
        let other = scene.space(1000);
        let background = spawn(reclaimer(scene.machine.memory));
        scene.write(&other, 0..60, 2000).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        assert!(Arc::ptr_eq(&scene.ended()[0], &other), "it has 60, the others 50 each");
        background.abort();
    });
}
