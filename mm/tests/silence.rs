//! Devices that do not answer while memory is out: each has five seconds from when it was asked, and then nobody waits for it
//! any more before somebody is ended.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::victims::{BASE, Scene, one_in_swap_and_two_in_memory};
use common::{PAGE, address};
use executor::{host, spawn, time, yield_now};
use mm::{Denial, Frame, PageError, PageRequest, Pager, StoreRequest, VmObject, reclaimer};

#[test]
fn where_the_disk_is_silent_each_victim_brings_frames_and_the_silence_is_waited_for_once() {
    let (scene, store) = Scene::with_swap(150, 61);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        // There is room for one page or two, which are under way for ever.
        scene.machine.forget_translations();
        in_swap.unmap(common::range(address(BASE), 1)).await.unwrap();
        store.hold();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        let begun = time::now();
        let waiting: Vec<_> = (0..60).map(|_| spawn(scene.machine.memory.frames().alloc())).collect();
        let mut given = Vec::new();
        for waiter in waiting {
            given.push(waiter.await.unwrap().unwrap());
        }
        let took = time::now() - begun;
        assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(8), "it took {took:?}");
        let ended = scene.ended();
        assert_eq!(ended.len(), 2);
        assert!(!ended.iter().any(|space| Arc::ptr_eq(space, &in_swap)), "it has no frame");
        assert!(store.held() > 0);
        drop((one, other));
        background.abort();
    });
}

#[test]
fn a_store_that_is_stuck_takes_no_time_from_a_swap_disk_that_is_asked_later() {
    let (scene, store) = Scene::with_swap(150, 61);
    let pager = scene.machine.pager();
    let object = VmObject::new(scene.machine.memory, pager.clone(), 10);
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        // The last slot is taken as well.
        scene.machine.forget_translations();
        mm::swap_out(scene.machine.memory, 1).await;
        object.write(0, &[1]).await.unwrap();
        pager.hold();
        store.hold();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        let waiting = spawn(scene.machine.memory.frames().alloc());
        time::sleep(Duration::from_secs(4)).await;
        assert!(!waiting.is_finished() && store.held() == 0, "swap is full");
        // There is room in swap now; the disk takes three seconds for the first page.
        scene.machine.forget_translations();
        in_swap.unmap(common::range(address(BASE), 20)).await.unwrap();
        time::sleep(Duration::from_secs(3)).await;
        assert!(store.held() > 0 && scene.ended().is_empty(), "the disk has five seconds");
        store.release_all();
        assert!(waiting.await.unwrap().is_ok());
        assert!(scene.ended().is_empty());
        pager.release_all().await;
        background.abort();
        drop((one, other));
    });
}

/// Fills memory with what a device has, and asks for more: who has the most gives way, though the device never answers.
async fn gives_way_though_no_device_answers(scene: &Scene) {
    let background = spawn(reclaimer(scene.machine.memory));
    let small = scene.space(20);
    scene.write(&small, 0..12, 1000).await.unwrap();
    let hog = scene.space(1000);
    let begun = time::now();
    assert_eq!(scene.write(&hog, 0..1000, 0).await, Err(Denial::NoMapping));
    assert!(time::now() - begun < Duration::from_secs(20), "it took {:?}", time::now() - begun);
    assert!(time::now() - begun >= Duration::from_secs(5), "the device had no time to answer");
    assert!(scene.ended().iter().any(|space| Arc::ptr_eq(space, &hog)));
    scene.write(&small, 12..20, 1000).await.unwrap();
    background.abort();
}

#[test]
fn a_swap_disk_that_never_answers_spares_nobody() {
    let (scene, store) = Scene::with_swap(200, 1000);
    store.hold();
    let _clock = host::simulate_time();
    host::block_on(gives_way_though_no_device_answers(&scene));
    assert!(store.held() > 0);
}

/// Takes frames for what it is asked to load, and keeps them.
#[derive(Default)]
struct Silent(Mutex<Vec<PageRequest>>);

impl Pager for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn load(&self, mut request: PageRequest) {
        assert!(request.try_attach());
        self.0.lock().unwrap().push(request);
    }
}

#[test]
fn a_pager_that_never_answers_a_load_spares_nobody() {
    let scene = Scene::new(200);
    let pager = Arc::new(Silent::default());
    let object = VmObject::new(scene.machine.memory, pager.clone(), 50);
    let _clock = host::simulate_time();
    host::block_on(async {
        let readers: Vec<_> = (0..50)
            .map(|page| {
                let object = object.clone();
                spawn(async move { object.read(page * PAGE, &mut [0; 8]).await })
            })
            .collect();
        yield_now().await;
        gives_way_though_no_device_answers(&scene).await;
        assert!(readers.iter().all(|reader| !reader.is_finished()));
        pager.0.lock().unwrap().clear();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), Err(PageError::Abandoned));
        }
    });
}

#[test]
fn a_pager_that_never_answers_a_store_spares_nobody() {
    let scene = Scene::new(200);
    let pager = scene.machine.pager();
    let object = VmObject::new(scene.machine.memory, pager.clone(), 50);
    let _clock = host::simulate_time();
    host::block_on(async {
        for page in 0..50 {
            object.write(page * PAGE, &[1]).await.unwrap();
        }
        pager.hold();
        gives_way_though_no_device_answers(&scene).await;
    });
}

/// A device that is silent once it has been asked for what it does not do at once. It has frames of its own for loads, so
/// it can be asked when memory is out.
struct Later {
    frames: Mutex<Vec<Frame>>,
    fills_late: bool,
    loads: Mutex<Vec<PageRequest>>,
    stores: Mutex<Vec<StoreRequest>>,
}

impl Later {
    fn has_been_asked(&self) -> bool {
        !self.loads.lock().unwrap().is_empty() || !self.stores.lock().unwrap().is_empty()
    }

    fn answer(&self) {
        for load in std::mem::take(&mut *self.loads.lock().unwrap()) {
            load.complete(Ok(()));
        }
        for store in std::mem::take(&mut *self.stores.lock().unwrap()) {
            store.complete(Ok(()));
        }
    }
}

impl Pager for Later {
    fn name(&self) -> &str {
        "later"
    }

    fn load(&self, mut request: PageRequest) {
        request.attach(self.frames.lock().unwrap().pop().expect("it has frames"));
        if self.fills_late {
            self.loads.lock().unwrap().push(request);
        } else {
            request.complete(Ok(()));
        }
    }

    fn store(&self, request: StoreRequest) {
        self.stores.lock().unwrap().push(request);
    }
}

#[test]
fn a_swap_disk_that_never_answers_takes_no_time_from_a_store_that_is_asked_for_later() {
    a_silent_swap_disk_takes_no_time(false);
}

#[test]
fn a_swap_disk_that_never_answers_takes_no_time_from_a_load_that_is_asked_for_later() {
    a_silent_swap_disk_takes_no_time(true);
}

fn a_silent_swap_disk_takes_no_time(fills_late: bool) {
    let (scene, store) = Scene::with_swap(150, 1000);
    let frames = scene.machine.memory.frames();
    let own = Mutex::new(vec![frames.try_alloc().unwrap()]);
    let later =
        Arc::new(Later { frames: own, fills_late, loads: Mutex::default(), stores: Mutex::default() });
    let object = VmObject::new(scene.machine.memory, later.clone(), 1);
    let _clock = host::simulate_time();
    host::block_on(async {
        let space = scene.space(60);
        scene.write(&space, 0..60, 1000).await.unwrap();
        store.hold();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        let waiting = spawn(frames.alloc());
        time::sleep(Duration::from_secs(4)).await;
        assert!(!waiting.is_finished() && store.held() > 0 && scene.ended().is_empty());
        // The other device is asked now, and takes three seconds.
        let asks = spawn(async move {
            if fills_late { object.read(0, &mut [0]).await } else { object.write(0, &[1]).await }
                .map(|()| object)
        });
        time::sleep(Duration::from_secs(3)).await;
        assert!(later.has_been_asked() && scene.ended().is_empty(), "it has five seconds");
        later.answer();
        assert!(waiting.await.unwrap().is_ok(), "the page that it has answered for has gone");
        assert!(scene.ended().is_empty());
        let _object = asks.await.unwrap();
        background.abort();
    });
    store.release_all();
}
