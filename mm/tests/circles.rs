//! Pagers that touch pages to make pages: where that goes round in a circle, whoever closes it gets an error, and nobody
//! waits for ever.

mod common;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;

use common::{Machine, PAGE, address, page, range};
use executor::host::{block_on, block_on_cpus};
use executor::{spawn, yield_now};
use mm::{
    Denial, PageError, PageIndex, PageRequest, PageState, Pager, Placement, Protection, StoreRequest,
    VmObject,
};

/// Pages of each object.
const PAGES: u64 = 4;
const RW: Protection = Protection::READ_WRITE;

/// What a page needs: another object's page, or its own.
type Need = (Weak<VmObject>, PageIndex);

/// Makes a page when it has read what that needs.
#[derive(Default)]
struct Needy {
    needs: Mutex<HashMap<u64, Vec<Need>>>,
    /// It waits for what the page needs, but not for long.
    gives_up: Mutex<Vec<u64>>,
    denied: AtomicUsize,
}

/// A pager that is its own owner, for the tasks that it spawns.
struct Pages(Arc<Needy>);

impl Needy {
    async fn read_needs(&self, index: PageIndex) -> Result<(), PageError> {
        let needs = self.needs.lock().unwrap().get(&index.as_u64()).cloned().unwrap_or_default();
        for (object, needed) in needs {
            let object = object.upgrade().expect("the objects live as long as the test");
            let mut word = [0; 8];
            let offset = needed.as_u64() * PAGE;
            if self.gives_up.lock().unwrap().contains(&index.as_u64()) {
                {
                    let mut reading = pin!(object.read(offset, &mut word));
                    let first = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
                    assert!(first.is_pending(), "what it needs is not there yet");
                }
                // What it needed goes on meanwhile.
                pause().await;
                continue;
            }
            object.read(offset, &mut word).await.inspect_err(|&error| {
                self.denied.fetch_add(usize::from(error == PageError::Deadlock), Ordering::SeqCst);
            })?;
        }
        Ok(())
    }

    async fn make(&self, mut request: PageRequest) {
        let serving = request.served_here().expect("there is memory");
        let result = self.read_needs(request.index()).await;
        drop(serving);
        let mut frame = request.memory().frames().alloc().await.expect("there are frames");
        frame.zero();
        request.attach(frame);
        request.complete(result);
    }
}

impl Pager for Pages {
    fn name(&self) -> &str {
        "needy"
    }

    fn load(&self, request: PageRequest) {
        let needy = self.0.clone();
        drop(spawn(async move { needy.make(request).await }));
    }

    fn store(&self, request: StoreRequest) {
        let needy = self.0.clone();
        drop(spawn(async move {
            let serving = request.served_here().expect("there is memory");
            let result = needy.read_needs(request.index()).await;
            drop(serving);
            request.complete(result);
        }));
    }
}

struct Scene {
    pagers: Vec<Arc<Needy>>,
    objects: Vec<Arc<VmObject>>,
}

impl Scene {
    fn new(machine: &'static Machine, objects: usize) -> Self {
        let pagers: Vec<Arc<Needy>> = (0..objects).map(|_| Arc::default()).collect();
        let object =
            |needy: &Arc<Needy>| VmObject::new(machine.memory, Arc::new(Pages(needy.clone())), PAGES);
        let objects = pagers.iter().map(object).collect();
        Self { pagers, objects }
    }

    /// A page, by object and number, needs these.
    fn needs(&self, (object, index): (usize, u64), needed: &[(usize, u64)]) {
        let name = |&(object, index): &(usize, u64)| (Arc::downgrade(&self.objects[object]), page(index));
        let needed = needed.iter().map(name).collect();
        self.pagers[object].needs.lock().unwrap().insert(index, needed);
    }

    async fn read(&self, (object, index): (usize, u64)) -> Result<(), PageError> {
        self.objects[object].read(index * PAGE, &mut [0; 8]).await
    }

    fn state(&self, (object, index): (usize, u64)) -> PageState {
        self.objects[object].state(page(index))
    }

    fn denied(&self) -> Vec<usize> {
        self.pagers.iter().map(|pager| pager.denied.load(Ordering::SeqCst)).collect()
    }
}

/// Runs what is ready.
async fn pause() {
    for _ in 0..20 {
        yield_now().await;
    }
}

#[test]
fn a_page_that_needs_itself_is_denied_to_its_pager() {
    block_on(async {
        let scene = Scene::new(Machine::new(100), 1);
        scene.needs((0, 0), &[(0, 0)]);
        assert_eq!(scene.read((0, 0)).await, Err(PageError::Deadlock));
        assert_eq!((scene.denied(), scene.state((0, 0))), (vec![1], PageState::Failed));
        // The next touch tries again.
        scene.needs((0, 0), &[]);
        assert_eq!(scene.read((0, 0)).await, Ok(()));
    });
}

#[test]
fn whoever_closes_a_circle_of_three_gets_the_error_and_the_others_the_end_of_their_wait() {
    block_on(async {
        let scene = Scene::new(Machine::new(100), 3);
        scene.needs((0, 0), &[(1, 1)]);
        scene.needs((1, 1), &[(2, 2)]);
        scene.needs((2, 2), &[(0, 0)]);
        assert_eq!(scene.read((0, 0)).await, Err(PageError::Deadlock));
        // The last one was denied a wait; the error then came down to the others.
        assert_eq!(scene.denied(), [1, 1, 1]);
        let states = [(0, 0), (1, 1), (2, 2)].map(|which| scene.state(which));
        assert_eq!(states, [PageState::Failed; 3]);
        // Of the three only the closer gave up: without what it needed the others find their pages.
        scene.needs((2, 2), &[]);
        assert_eq!(scene.read((0, 0)).await, Ok(()));
        assert_eq!(scene.denied(), [1, 1, 1]);
    });
}

#[test]
fn what_many_need_and_what_needs_much_is_no_circle() {
    block_on(async {
        let scene = Scene::new(Machine::new(100), 2);
        scene.needs((0, 0), &[(1, 0), (1, 1), (1, 2)]);
        scene.needs((1, 0), &[(1, 3)]);
        scene.needs((1, 1), &[(1, 3), (1, 0)]);
        scene.needs((1, 2), &[(1, 1), (1, 3)]);
        assert_eq!(scene.read((0, 0)).await, Ok(()));
        assert_eq!(scene.denied(), [0, 0]);
    });
}

#[test]
fn a_touch_by_somebody_else_in_the_circle_waits_for_its_end() {
    block_on(async {
        let scene = Arc::new(Scene::new(Machine::new(100), 2));
        scene.needs((0, 0), &[(1, 0)]);
        scene.needs((1, 0), &[(0, 0)]);
        let others: Vec<_> = [(0, 0), (1, 0), (0, 0), (1, 0)]
            .into_iter()
            .map(|which| {
                let scene = scene.clone();
                spawn(async move { scene.read(which).await })
            })
            .collect();
        for other in others {
            assert_eq!(other.await.unwrap(), Err(PageError::Deadlock));
        }
    });
}

#[test]
fn a_wait_that_was_given_up_closes_no_circle() {
    block_on(async {
        let scene = Scene::new(Machine::new(100), 2);
        scene.needs((0, 0), &[(1, 0)]);
        scene.pagers[0].gives_up.lock().unwrap().push(0);
        scene.needs((1, 0), &[(0, 0)]);
        assert_eq!(scene.read((0, 0)).await, Ok(()));
        assert_eq!(scene.read((1, 0)).await, Ok(()));
        assert_eq!(scene.denied(), [0, 0]);
    });
}

#[test]
fn a_program_that_touches_a_page_of_the_circle_is_told_so() {
    block_on(async {
        let machine = Machine::new(100);
        let scene = Scene::new(machine, 1);
        scene.needs((0, 0), &[(0, 1)]);
        scene.needs((0, 1), &[(0, 0)]);
        let window = machine.window();
        let start = window.map(&scene.objects[0], page(0), PAGES, RW, Placement::Anywhere).unwrap();
        assert_eq!(machine.read(&window, start.as_u64()).await, Err(Denial::Deadlock));
        assert!(window.walk(start).is_none());
        window.unmap(range(start, PAGES)).await.unwrap();
    });
}

#[test]
fn a_pager_that_faults_on_what_it_makes_is_denied() {
    block_on(async {
        /// Touches its own page by an address.
        struct Faulting(&'static Machine, Mutex<Option<Arc<mm::AddressSpace>>>);
        const AT: u64 = 0x40_0000;
        impl Pager for Faulting {
            fn name(&self) -> &str {
                "faulting"
            }
            fn load(&self, request: PageRequest) {
                let (machine, space) = (self.0, self.1.lock().unwrap().clone().expect("it is mapped"));
                drop(spawn(async move {
                    let serving = request.served_here().expect("there is memory");
                    let denied = machine.read(&space, AT).await;
                    drop(serving);
                    assert_eq!(denied, Err(Denial::Deadlock));
                    request.complete(Err(PageError::Corrupted));
                }));
            }
        }
        let machine = Machine::new(100);
        let space = machine.user_space();
        let pager = Arc::new(Faulting(machine, Mutex::new(Some(space.clone()))));
        let object = VmObject::new(machine.memory, pager.clone(), 1);
        space.map(&object, page(0), 1, RW.for_user(), Placement::Fixed(address(AT))).unwrap();
        let denied = machine.read(&space, AT).await;
        // What the pager makes of it is its own affair.
        assert_eq!(denied, Err(Denial::Corrupted { page: page(0) }));
        pager.1.lock().unwrap().take();
    });
}

#[test]
fn a_store_that_needs_its_own_page_to_be_stored_is_denied() {
    block_on(async {
        /// Writes a page by having it written.
        struct Storing(Mutex<Weak<VmObject>>, AtomicUsize);
        impl Pager for Storing {
            fn name(&self) -> &str {
                "storing"
            }
            fn load(&self, mut request: PageRequest) {
                request.attach(request.memory().frames().try_alloc_zeroed().expect("there are frames"));
                request.complete(Ok(()));
            }
            fn store(&self, request: StoreRequest) {
                self.1.fetch_add(1, Ordering::SeqCst);
                let object = self.0.lock().unwrap().upgrade().expect("it lives");
                drop(spawn(async move {
                    let serving = request.served_here().expect("there is memory");
                    let denied = object.store(page(0)..page(1)).await.map_err(|error| error.error);
                    drop(serving);
                    assert_eq!(denied, Err(PageError::Deadlock));
                    request.complete(Ok(()));
                }));
            }
        }
        let machine = Machine::new(100);
        let pager = Arc::new(Storing(Mutex::default(), AtomicUsize::new(0)));
        let object = VmObject::new(machine.memory, pager.clone(), 1);
        *pager.0.lock().unwrap() = Arc::downgrade(&object);
        object.write(0, &[1]).await.unwrap();
        object.store(page(0)..page(1)).await.unwrap();
        assert_eq!(pager.1.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn circles_that_close_on_several_cpus_at_once_all_end() {
    block_on_cpus(3, async {
        let machine = Machine::with_cpus(100);
        for _ in 0..200 {
            let scene = Arc::new(Scene::new(machine, 3));
            for object in 0..3 {
                scene.needs((object, 0), &[((object + 1) % 3, 0)]);
            }
            let readers: Vec<_> = (0..3)
                .map(|object| {
                    let scene = scene.clone();
                    spawn(async move { scene.read((object, 0)).await })
                })
                .collect();
            for reader in readers {
                assert_eq!(reader.await.unwrap(), Err(PageError::Deadlock));
            }
            assert!(scene.denied().iter().sum::<usize>() >= 1);
            pause().await;
        }
        machine.memory.settle().await;
        let stats = machine.memory.stats();
        assert!(stats.loads_failed >= 600 && stats.loads_failed == stats.loads_started, "{stats:?}");
    });
}
