//! Swap that is full or about to be, on a disk that answers, and still no page leaves: each is in use again by the time at
//! which it is written. Memory is out then, and a space that has slots is who gives way.

mod common;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::victims::{BASE, Scene, Spaces, one_in_swap_and_two_in_memory};
use common::{Machine, PAGE};
use executor::{host, spawn, time};
use mm::{AddressSpace, PAGE_SIZE, SwapRead, SwapStore, SwapWrite, TestStore, reclaimer};

/// A disk that takes its time, so that there is always a write under way, and whose every page has been written to again
/// meanwhile.
struct Late {
    store: Arc<TestStore>,
    machine: &'static Machine,
    spaces: &'static Spaces,
    /// Those whose pages are, with the number of each page less that of its word.
    users: Mutex<Vec<(Arc<AddressSpace>, u64)>>,
    writes: AtomicU64,
}

impl SwapStore for Late {
    fn slots(&self) -> u64 {
        self.store.slots()
    }

    fn slots_at_once(&self) -> usize {
        1
    }

    fn read(&self, read: SwapRead) {
        self.store.read(read);
    }

    fn write(&self, write: SwapWrite) {
        let mut bytes = [0; PAGE_SIZE];
        write.read(0, &mut bytes);
        let word = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let is_its = |&&(_, first): &&(_, u64)| (first..first + 100).contains(&word);
        let user = self.users.lock().unwrap().iter().find(is_its).cloned();
        let Some((space, first)) = user.filter(|_| self.spaces.ended.lock().unwrap().is_empty()) else {
            return self.store.write(write);
        };
        // The second ends between the first and the third, and so on.
        let takes = Duration::from_millis(if self.writes.fetch_add(1, Relaxed) == 1 { 4500 } else { 3000 });
        let (store, machine) = (self.store.clone(), self.machine);
        let _detached = spawn(async move {
            time::sleep(takes).await;
            machine.write(&space, BASE + (word - first) * PAGE, word).await.unwrap();
            store.write(write);
        });
    }
}

#[test]
fn what_a_space_has_in_full_swap_counts_where_the_disk_answers_and_no_page_leaves() {
    let scene = Scene::new(150);
    let late = Arc::new(Late {
        store: TestStore::new(62),
        machine: scene.machine,
        spaces: scene.spaces,
        users: Mutex::default(),
        writes: AtomicU64::new(0),
    });
    scene.machine.memory.swap_on(late.clone()).unwrap();
    let _clock = host::simulate_time();
    host::block_on(async {
        let [in_swap, one, other] = one_in_swap_and_two_in_memory(&scene).await;
        *late.users.lock().unwrap() = vec![(one.clone(), 2000), (other.clone(), 3000)];
        scene.machine.forget_translations();
        let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
        let background = spawn(reclaimer(scene.machine.memory));
        let begun = time::now();
        assert!(scene.machine.memory.frames().alloc().await.is_ok());
        let took = time::now() - begun;
        assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(10), "it took {took:?}");
        let ended = scene.ended();
        assert_eq!(ended.len(), 1);
        assert!(Arc::ptr_eq(&ended[0], &in_swap), "its slots are what the others need");
        assert!(scene.is_intact(&one, 49, 2000).await && scene.is_intact(&other, 50, 3000).await);
        background.abort();
    });
}
