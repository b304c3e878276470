//! How long those who give memory back wait for stores: not for ever, whatever CPUs, pagers and writers do.

mod common;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use common::cpus::Busy;
use common::shown::RW;
use common::tasks::block_on;
use common::victims::Spaces;
use common::{Machine, PAGE, address, page};
use executor::{host, spawn, time, yield_now};
use mm::write_back::clean_oldest;
use mm::{
    AddressSpace, Marks, PageError, PageRequest, Pager, Placement, StoreRequest, TestPager, VmObject,
    reclaimer,
};

/// A page that was written through the page table of a space, which shows it still.
struct Written {
    machine: &'static Machine,
    pager: Arc<TestPager>,
    object: Arc<VmObject>,
    _space: Arc<AddressSpace>,
}

async fn written() -> Written {
    let machine = Machine::new(100);
    let pager = machine.pager();
    let object = VmObject::new(machine.memory, pager.clone(), 1);
    let space = machine.user_space();
    let start = address(0x40_0000);
    space.map(&object, page(0), 1, RW, Placement::Fixed(start)).unwrap();
    machine.write(&space, start.as_u64(), 7).await.unwrap();
    Written { machine, pager, object, _space: space }
}

#[test]
fn a_turn_is_not_over_before_what_was_stored_is_clean_however_long_other_cpus_take() {
    a_turn_waits_for_other_cpus(true);
}

#[test]
fn a_turn_is_not_over_before_something_is_stored_however_long_other_cpus_take() {
    a_turn_waits_for_other_cpus(false);
}

fn a_turn_waits_for_other_cpus(is_stored: bool) {
    host::block_on_cpus(2, async move {
        let scene = written().await;
        let machine = scene.machine;
        if is_stored {
            scene.object.store(page(0)..page(1)).await.unwrap();
        }
        let busy = Busy::begin(machine).await;
        let turn = spawn(clean_oldest(machine.memory, 1));
        // Twice as long as a turn.
        time::sleep(Duration::from_millis(100)).await;
        assert!(!turn.is_finished(), "there is a page that can become clean");
        busy.end().await;
        assert_eq!(turn.await.unwrap(), 1);
    });
}

#[test]
fn a_turn_is_over_after_a_second_where_other_cpus_do_not_come_at_all() {
    host::block_on_cpus(2, async {
        let scene = written().await;
        let (machine, pager) = (scene.machine, &scene.pager);
        let busy = Busy::begin(machine).await;
        let begun = time::now();
        let cleaned = time::timeout(Duration::from_secs(20), clean_oldest(machine.memory, 1)).await;
        assert_eq!((cleaned, pager.stores()), (Ok(0), 0), "the pager may not have what a CPU may write to");
        assert!(begun.elapsed() >= Duration::from_millis(900), "it took {:?}", begun.elapsed());
        busy.end().await;
        // Nothing is left behind that keeps the page from being stored later.
        assert_eq!(clean_oldest(machine.memory, 1).await, 1);
    });
}

#[test]
fn a_mark_that_is_cut_short_with_its_turn_is_made_in_the_next_and_nothing_is_stored_again() {
    host::block_on_cpus(2, async {
        let scene = written().await;
        let (machine, hung) = (scene.machine, scene.machine.pager());
        scene.object.store(page(0)..page(1)).await.unwrap();
        // Something is under way, so a turn is over after 50 ms.
        let other = VmObject::new(machine.memory, hung.clone(), 1);
        other.write(0, &[1]).await.unwrap();
        hung.hold();
        let store = spawn(async move { other.store(page(0)..page(1)).await });
        while hung.stores() == 0 {
            yield_now().await;
        }
        let busy = Busy::begin(machine).await;
        assert_eq!(clean_oldest(machine.memory, 1).await, 1, "the one that is under way");
        busy.end().await;
        clean_oldest(machine.memory, 2).await;
        let stats = machine.memory.write_back_stats();
        assert_eq!((stats.cleaned, scene.pager.stores()), (1, 1));
        assert!(hung.release_store(page(0)));
        store.await.unwrap().unwrap();
    });
}

/// What these pagers have before they store anything.
fn load_zeros(mut request: PageRequest) {
    request.attach(request.memory().frames().try_alloc_zeroed().expect("there are frames"));
    request.complete(Ok(()));
}

/// A pager whose stores fail within the call.
#[derive(Default)]
struct Failing {
    stores: AtomicUsize,
}

impl Pager for Failing {
    fn name(&self) -> &str {
        "failing"
    }

    fn load(&self, request: PageRequest) {
        load_zeros(request);
    }

    fn store(&self, request: StoreRequest) {
        assert!(self.stores.fetch_add(1, Ordering::Relaxed) < 10, "nobody ever waits");
        request.complete(Err(PageError::Io));
    }
}

#[test]
fn a_turn_waits_for_what_is_under_way_though_other_stores_fail_at_once() {
    let machine = Machine::new(100);
    let (hung, failing) = (machine.pager(), Arc::new(Failing::default()));
    let held = VmObject::new(machine.memory, hung.clone(), 1);
    let other = VmObject::new(machine.memory, failing.clone(), 1);
    let _clock = host::simulate_time();
    host::block_on(async {
        held.write(0, &[1]).await.unwrap();
        other.write(0, &[1]).await.unwrap();
        hung.hold();
        let store = spawn({
            let held = held.clone();
            async move { held.store(page(0)..page(1)).await }
        });
        while hung.stores() == 0 {
            yield_now().await;
        }
        let begun = time::now();
        assert_eq!(clean_oldest(machine.memory, 2).await, 1, "the one that is under way");
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert!(hung.release_store(page(0)));
        store.await.unwrap().unwrap();
    });
    assert_eq!(failing.stores.load(Ordering::Relaxed), 1);
}

/// A pager whose disk takes a while for each page.
#[derive(Default)]
struct Crawling {
    stores: Mutex<VecDeque<StoreRequest>>,
}

impl Crawling {
    async fn serve(self: Arc<Self>, time_of_page: Duration) {
        loop {
            time::sleep(time_of_page).await;
            if let Some(store) = self.stores.lock().unwrap().pop_front() {
                store.complete(Ok(()));
            }
        }
    }
}

impl Pager for Crawling {
    fn name(&self) -> &str {
        "crawling"
    }

    fn load(&self, request: PageRequest) {
        load_zeros(request);
    }

    fn store(&self, request: StoreRequest) {
        self.stores.lock().unwrap().push_back(request);
    }
}

#[test]
fn what_a_disk_has_stored_after_its_turn_is_clean_in_the_next_however_many_others_are_dirty() {
    const PAGES: u64 = 2000;
    let machine = Machine::new(PAGES as usize + 100);
    let pager = Arc::new(Crawling::default());
    let object = VmObject::new(machine.memory, pager.clone(), PAGES);
    let _clock = host::simulate_time();
    host::block_on(async move {
        for index in 0..PAGES {
            object.write(index * PAGE, &[1]).await.unwrap();
        }
        // Two turns for as many pages as are stored together.
        let disk = spawn(pager.serve(Duration::from_millis(3)));
        let until = time::now() + Duration::from_secs(1);
        while time::now() < until {
            assert!(clean_oldest(machine.memory, 100).await > 0, "stores are under way");
        }
        let stats = machine.memory.write_back_stats();
        assert!(stats.stored > 300 && stats.stored - stats.cleaned < 64, "{stats:?}");
        disk.abort();
    });
}

/// A pager whose page is written while it is stored, each time, at most so many times.
struct Busybody {
    object: Mutex<Weak<VmObject>>,
    stores: AtomicUsize,
    most: usize,
    /// How long its disk takes for a store, if it takes any time.
    takes: Option<Duration>,
}

impl Busybody {
    fn object(machine: &Machine, most: usize, takes: Option<Duration>) -> (Arc<Self>, Arc<VmObject>) {
        let pager = Arc::new(Self { object: Mutex::default(), stores: AtomicUsize::new(0), most, takes });
        let object = VmObject::new(machine.memory, pager.clone(), 1);
        *pager.object.lock().unwrap() = Arc::downgrade(&object);
        (pager, object)
    }
}

impl Pager for Busybody {
    fn name(&self) -> &str {
        "busybody"
    }

    fn load(&self, request: PageRequest) {
        load_zeros(request);
    }

    fn store(&self, request: StoreRequest) {
        assert!(self.stores.fetch_add(1, Ordering::Relaxed) < self.most, "nobody ever stops storing it");
        let object = self.object.lock().unwrap().upgrade().expect("it lives");
        if let Some(takes) = self.takes {
            drop(spawn(async move {
                time::sleep(takes).await;
                object.write(0, &[1]).await.expect("the page is there");
                request.complete(Ok(()));
            }));
            return;
        }
        let mut write = pin!(object.write(0, &[1]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(write.as_mut().poll(&mut context).is_ready(), "the page is there");
        request.complete(Ok(()));
    }
}

#[test]
fn a_turn_ends_where_a_page_is_written_each_time_that_it_is_stored() {
    let machine = Machine::new(100);
    let (pager, object) = Busybody::object(machine, 10, None);
    block_on(async move {
        object.write(0, &[1]).await.unwrap();
        assert_eq!(clean_oldest(machine.memory, 1).await, 0, "it is dirty again");
    });
    assert_eq!(pager.stores.load(Ordering::Relaxed), 2);
}

#[test]
fn who_waits_for_memory_is_answered_though_a_page_is_written_each_time_that_it_is_stored() {
    let machine = Machine::new(100);
    let (pager, object) = Busybody::object(machine, 100, None);
    let frames = machine.memory.frames();
    let _clock = host::simulate_time();
    host::block_on(async {
        object.write(0, &[1]).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let background = spawn(reclaimer(machine.memory));
        assert!(frames.alloc().await.is_err(), "nothing can be freed, and there is nobody to end");
        background.abort();
    });
    assert!(pager.stores.load(Ordering::Relaxed) >= 4, "it was believed to become clean more than once");
}

#[test]
fn a_victim_is_ended_for_memory_though_a_page_is_written_each_time_that_it_is_stored() {
    let machine = Machine::with_table_frames(100, 64);
    let (_pager, object) = Busybody::object(machine, 100, None);
    let frames = machine.memory.frames();
    frames.set_marks(Marks { reserve: 4, low: 10, high: 20 });
    let victims: &'static Spaces = Box::leak(Box::default());
    machine.memory.set_victims(victims);
    let _clock = host::simulate_time();
    host::block_on(async {
        object.write(0, &[1]).await.unwrap();
        let space = machine.user_space();
        space.map_anonymous(40, RW, Placement::Fixed(address(0x40_0000))).unwrap();
        for index in 0..40 {
            machine.write(&space, 0x40_0000 + index * PAGE, 1).await.unwrap();
            yield_now().await;
        }
        victims.all.lock().unwrap().push(space);
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let background = spawn(reclaimer(machine.memory));
        assert!(frames.alloc().await.is_ok());
        assert!(!victims.ended.lock().unwrap().is_empty(), "its frames are what was given");
        background.abort();
    });
}

#[test]
fn a_disk_that_answers_and_makes_no_page_clean_spares_nobody() {
    let machine = Machine::new(100);
    let (_pager, object) = Busybody::object(machine, usize::MAX, Some(Duration::from_millis(100)));
    let frames = machine.memory.frames();
    let _clock = host::simulate_time();
    host::block_on(async {
        object.write(0, &[1]).await.unwrap();
        let _taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc()).collect();
        let background = spawn(reclaimer(machine.memory));
        let answer = time::timeout(Duration::from_secs(60), frames.alloc()).await;
        assert!(matches!(answer, Ok(Err(_))), "it goes on storing the page for ever");
        background.abort();
    });
}
