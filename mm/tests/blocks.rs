//! Backing stores whose blocks are larger than a page, or smaller: whole blocks are read and written, and nothing of a block
//! is lost for a page of it.

mod common;

use common::blocks::Did::{Read, Wrote};
use common::blocks::{BlockScene, TestBlocks};
use common::{Machine, PAGE, content, page};
use mm::{BlocksError, BlocksOf, Denial, PageError, PageState, StoreError};

/// Four pages.
const BLOCK: usize = 4 * PAGE as usize;

fn io(index: u64, error: PageError) -> Result<u64, Denial> {
    Err(Denial::Io { page: page(index), error })
}

#[test]
fn a_page_is_loaded_by_reading_its_whole_block() {
    let mut scene = BlockScene::new(BLOCK, 16);
    assert_eq!(scene.read(6), Ok(content(6)));
    assert_eq!(scene.store.take_did(), [Read(1)]);
    assert_eq!(scene.state(5), PageState::Absent, "nobody wants it");
}

#[test]
fn the_pages_of_a_block_are_loaded_together_where_reading_ahead_is_on() {
    let mut scene = BlockScene::with_read_ahead(BLOCK, 16);
    assert_eq!(scene.read(6), Ok(content(6)));
    for index in 4..8 {
        assert!(matches!(scene.state(index), PageState::Loaded { .. }), "page {index}");
        assert_eq!(scene.read(index), Ok(content(index)));
    }
    assert_eq!(scene.store.take_did()[0], Read(1));
    assert_eq!(scene.state(3), PageState::Absent);
}

#[test]
fn reading_in_order_reads_each_block_once() {
    let mut scene = BlockScene::with_read_ahead(BLOCK, 64);
    for index in 0..64 {
        assert_eq!(scene.read(index), Ok(content(index)));
    }
    let mut blocks = scene.store.take_did();
    blocks.sort_by_key(|did| if let Read(block) = did { *block } else { panic!("{did:?}") });
    assert_eq!(blocks, (0..16).map(Read).collect::<Vec<_>>());
}

#[test]
fn a_touch_beside_pages_that_are_there_loads_the_rest_of_the_block_in_one_transfer() {
    let mut scene = BlockScene::with_read_ahead(BLOCK, 16);
    assert_eq!(scene.read(5), Ok(content(5)));
    let object = scene.object.clone();
    let released = scene.tasks.spawn(async move {
        object.release(page(4)..page(5)).await;
        object.release(page(6)..page(8)).await;
    });
    scene.tasks.run();
    assert!(released.is_done());
    scene.store.take_did();
    assert_eq!(scene.read(7), Ok(content(7)));
    assert_eq!(scene.store.take_did()[0], Read(1));
    assert!(matches!(scene.state(4), PageState::Loaded { .. }));
}

#[test]
fn pages_wanted_while_a_block_is_read_come_with_the_next_reading() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.store.hold();
    let first = scene.reader(4);
    let others = [5, 6].map(|index| scene.reader(index));
    assert_eq!((scene.store.held(), scene.pager.as_ref().unwrap().waiting()), (1, 2));
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!(first.take(), Some(Ok(content(4))));
    assert_eq!(others.map(|other| other.take()), [Some(Ok(content(5))), Some(Ok(content(6)))]);
    assert_eq!(scene.store.take_did(), [Read(1), Read(1)]);
}

#[test]
fn a_page_that_was_invalidated_while_its_block_was_read_for_another_is_read_anew() {
    let mut scene = BlockScene::new(BLOCK, 16);
    assert_eq!(scene.read(4), Ok(content(4)));
    scene.store.hold();
    let other = scene.reader(5);
    scene.store.poke(4, 7);
    let object = scene.object.clone();
    let invalidated = scene.tasks.spawn(async move { object.invalidate(page(4)).await });
    scene.tasks.run();
    assert!(invalidated.is_done());
    let reader = scene.reader(4);
    assert!(!reader.is_done(), "what is being read may be from before");
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!((other.take(), reader.take()), (Some(Ok(content(5))), Some(Ok(7))));
}

#[test]
fn a_dirty_page_is_stored_with_what_its_block_has() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.write(6, 7);
    // What the store has by now, not what was there when the page was loaded.
    scene.store.poke(5, 55);
    scene.store.take_did();
    assert_eq!(scene.store(0, 16).take(), Some(Ok(())));
    assert_eq!(scene.store.take_did(), [Read(1), Wrote(1)]);
    let words = [4, 5, 6, 7].map(|index| scene.store.words(index));
    assert_eq!(words, [[content(4); 2], [55; 2], [7, content(6)], [content(7); 2]]);
}

#[test]
fn a_block_whose_pages_are_all_stored_is_not_read() {
    let mut scene = BlockScene::new(BLOCK, 16);
    (3..9).for_each(|index| scene.write(index, index));
    scene.store.take_did();
    assert_eq!(scene.store(0, 16).take(), Some(Ok(())));
    assert_eq!(scene.store.take_did(), [Read(0), Wrote(0), Wrote(1), Read(2), Wrote(2)]);
    for index in 3..9 {
        assert_eq!(scene.store.words(index), [index, content(index)]);
    }
    assert_eq!(scene.store.words(2), [content(2); 2]);
    assert_eq!(scene.store.words(9), [content(9); 2]);
}

#[test]
fn two_stores_of_pages_of_one_block_lose_neither() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.write(4, 44);
    scene.write(7, 77);
    scene.store.take_did();
    scene.store.hold();
    let first = scene.store(4, 5);
    let second = scene.store(7, 8);
    assert_eq!(scene.store.held(), 1, "one at a time");
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!((first.take(), second.take()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(scene.store.take_did(), [Read(1), Wrote(1), Read(1), Wrote(1)]);
    let words = [4, 5, 6, 7].map(|index| scene.store.words(index)[0]);
    assert_eq!(words, [44, content(5), content(6), 77]);
}

#[test]
fn a_block_is_not_read_for_a_load_while_it_is_written() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.write(4, 44);
    scene.store.take_did();
    scene.store.hold();
    let store = scene.store(4, 5);
    let reader = scene.reader(5);
    let elsewhere = scene.reader(0);
    assert_eq!(scene.store.held(), 2, "the store's reading, and another block");
    scene.store.release(2);
    scene.tasks.run();
    assert_eq!(scene.store.take_did(), [Read(1), Read(0), Wrote(1), Read(1)]);
    assert_eq!(reader.take(), Some(Ok(content(5))));
    assert_eq!((elsewhere.take(), store.take()), (Some(Ok(content(0))), Some(Ok(()))));
}

#[test]
fn a_page_written_during_its_store_stays_dirty_and_is_stored_again() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.write(4, 1);
    scene.store.hold();
    let store = scene.store(4, 5);
    scene.write(4, 2);
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!(store.take(), Some(Ok(())));
    assert_eq!(scene.object.mark(page(0)..page(16)).now(&mut scene.tasks), 0);
    assert_eq!(scene.store(0, 16).take(), Some(Ok(())));
    assert_eq!(scene.store.words(4)[0], 2);
    assert_eq!(scene.object.mark(page(0)..page(16)).now(&mut scene.tasks), 1);
}

#[test]
fn a_short_read_loads_the_pages_that_came_in_whole() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.store.hold();
    // The first wants a page of another block, so the others wait together.
    let first = scene.reader(0);
    let readers = [4, 5, 6].map(|index| scene.reader(index));
    scene.store.release(1);
    scene.store.cut(false, 2 * PAGE as usize - 1, PageError::Corrupted);
    scene.tasks.run();
    assert_eq!(first.take(), Some(Ok(content(0))));
    let corrupted = |index| Some(Err(Denial::Corrupted { page: page(index) }));
    assert_eq!(readers.map(|reader| reader.take()), [Some(Ok(content(4))), corrupted(5), corrupted(6)]);
    assert_eq!(
        (scene.read(5), scene.read(6)),
        (Ok(content(5)), Ok(content(6))),
        "the next touch tries again"
    );
}

#[test]
fn a_failed_block_is_an_error_for_those_who_want_its_pages_and_no_others() {
    let mut scene = BlockScene::with_read_ahead(BLOCK, 16);
    scene.store.cut(false, 0, PageError::Io);
    assert_eq!(scene.read(5), io(5, PageError::Io));
    assert_eq!((scene.state(4), scene.state(5)), (PageState::Absent, PageState::Failed));
    assert_eq!((scene.read(4), scene.read(9)), (Ok(content(4)), Ok(content(9))));
}

#[test]
fn a_store_into_a_block_that_cannot_be_read_writes_nothing() {
    for bytes in [0, 3 * PAGE as usize] {
        let mut scene = BlockScene::new(BLOCK, 16);
        scene.write(4, 44);
        scene.store.take_did();
        scene.store.cut(false, bytes, PageError::Io);
        let failed = StoreError { page: page(4), error: PageError::Io };
        assert_eq!(scene.store(0, 16).take(), Some(Err(failed)));
        assert_eq!(scene.store.take_did(), [Read(1)]);
        assert!(matches!(scene.state(4), PageState::Dirty { .. }));
        assert_eq!(scene.store(0, 16).take(), Some(Ok(())));
        assert_eq!(scene.store.words(4), [44, content(4)]);
    }
}

#[test]
fn a_short_write_stores_the_pages_that_went_in_whole() {
    let mut scene = BlockScene::new(BLOCK, 16);
    (4..8).for_each(|index| scene.write(index, index));
    scene.store.cut(true, 2 * PAGE as usize, PageError::DeviceGone);
    let failed = StoreError { page: page(6), error: PageError::DeviceGone };
    assert_eq!(scene.store(0, 16).take(), Some(Err(failed)));
    assert_eq!(scene.object.mark(page(0)..page(16)).now(&mut scene.tasks), 2);
    let dirty = |index| matches!(scene.state(index), PageState::Dirty { .. });
    assert_eq!([4, 5, 6, 7].map(dirty), [false, false, true, true]);
}

#[test]
fn a_transfer_that_is_dropped_is_abandoned_and_its_block_is_free() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.store.hold();
    let reader = scene.reader(5);
    scene.store.forget_one();
    scene.tasks.run();
    assert_eq!(reader.take(), Some(io(5, PageError::Abandoned)));
    scene.store.release(0);
    assert_eq!(scene.read(5), Ok(content(5)));
}

#[test]
fn who_gives_up_waiting_changes_nothing_for_others() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.store.hold();
    let (one, other) = (scene.reader(5), scene.reader(5));
    scene.tasks.kill(&one);
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!(other.take(), Some(Ok(content(5))));
}

#[test]
fn a_server_that_is_dropped_leaves_its_block_to_others_when_the_store_is_done() {
    let mut scene = BlockScene::new(BLOCK, 16);
    // The tables are there.
    assert_eq!(scene.read(0), Ok(content(0)));
    let free = scene.machine.free();
    let another = scene.pager.as_ref().unwrap().try_server(mm::Serves::Loads).unwrap();
    scene.store.hold();
    let reader = scene.reader(5);
    let held = scene.machine.free();
    scene.tasks.kill(&scene.servers[0]);
    assert_eq!(scene.machine.free(), held, "the store may still write to them");
    let _another = scene.tasks.spawn(another);
    let waiting = scene.reader(6);
    assert!(!waiting.is_done(), "one at a time");
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!(reader.take(), Some(io(5, PageError::Abandoned)));
    assert_eq!(waiting.take(), Some(Ok(content(6))));
    assert_eq!(scene.machine.free(), free - 1, "the page's; the other server has as many as the first had");
}

#[test]
fn without_a_frame_a_load_waits_and_a_store_of_its_block_goes_on() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.write(4, 44);
    scene.store.take_did();
    let mut taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc()).collect();
    let reader = scene.reader(5);
    assert_eq!(scene.store(0, 16).take(), Some(Ok(())));
    assert_eq!((scene.store.take_did().len(), reader.is_done()), (2, false));
    // One for the page; its table is there.
    taken.pop();
    scene.tasks.run();
    assert_eq!(reader.take(), Some(Ok(content(5))));
}

#[test]
fn without_frames_to_spare_the_block_is_read_for_the_page_that_is_wanted() {
    let mut scene = BlockScene::with_read_ahead(BLOCK, 16);
    assert_eq!(scene.read(0), Ok(content(0)));
    let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc_spare()).collect();
    assert_eq!(scene.read(9), Ok(content(9)));
    assert_eq!((scene.state(8), scene.state(10)), (PageState::Absent, PageState::Absent));
}

#[test]
fn pages_read_ahead_that_wait_when_frames_become_short_end_with_nothing() {
    let mut scene = BlockScene::with_read_ahead(BLOCK, 16);
    scene.store.hold();
    let first = scene.reader(0);
    let second = scene.reader(5);
    assert_eq!(scene.pager.as_ref().unwrap().waiting(), 4, "the second block's pages");
    let _taken: Vec<_> = std::iter::from_fn(|| scene.machine.memory.frames().try_alloc_spare()).collect();
    scene.store.release(1);
    scene.tasks.run();
    assert_eq!((first.take(), second.take()), (Some(Ok(content(0))), Some(Ok(content(5)))));
    assert_eq!((scene.state(4), scene.state(6)), (PageState::Absent, PageState::Absent));
    assert_eq!(scene.pager.as_ref().unwrap().waiting(), 0);
}

#[test]
fn the_frames_come_back_when_the_pager_goes() {
    let mut scene = BlockScene::new(BLOCK, 16);
    scene.store.hold();
    let readers = [1, 5].map(|index| scene.reader(index));
    let before = scene.machine.free();
    let (space, all) = (scene.space.clone(), common::range(scene.start, 16));
    let unmapped = scene.tasks.spawn(async move { space.unmap(all).await });
    scene.tasks.run();
    assert!(unmapped.is_done() && readers.iter().all(|reader| !reader.is_done()));
    scene.object = mm::VmObject::zero(scene.machine.memory, 1);
    scene.pager = None;
    scene.tasks.run();
    assert!(scene.servers[1].is_done() && !scene.servers[0].is_done(), "the store has a block");
    scene.store.release(1);
    scene.tasks.run();
    assert!(scene.servers[0].is_done() && readers.iter().all(|reader| reader.is_done()));
    assert!(scene.machine.free() >= before + 8, "two blocks");
}

#[test]
fn blocks_of_512_bytes_to_a_page_are_read_and_written_by_pages() {
    for bytes in [512, 1024, 4096] {
        let mut scene = BlockScene::new(bytes, 16);
        scene.write(6, 7);
        assert_eq!(scene.store(0, 16).take(), Some(Ok(())));
        assert_eq!(scene.store.take_did(), [Read(6), Wrote(6)], "{bytes}");
        assert_eq!(scene.store.words(6), [7, content(6)]);
    }
}

#[test]
fn blocks_of_2_mib_are_served() {
    let mut scene = BlockScene::new(2 << 20, 1024);
    scene.write(600, 7);
    assert_eq!(scene.store(0, 1024).take(), Some(Ok(())));
    assert_eq!(scene.store.take_did(), [Read(1), Read(1), Wrote(1)]);
    assert_eq!((scene.store.words(600), scene.store.words(1023)), ([7, content(600)], [content(1023); 2]));
}

#[test]
fn pages_beyond_the_end_are_out_of_range() {
    let mut scene = BlockScene::new(BLOCK, 16);
    let machine = scene.machine;
    let object = mm::VmObject::new(machine.memory, scene.pager.clone().unwrap(), 100);
    let read = |index: u64| {
        let object = object.clone();
        async move {
            let mut bytes = [0; 8];
            object.read(index * PAGE, &mut bytes).await
        }
    };
    let (inside, beyond) = (scene.tasks.spawn(read(15)), scene.tasks.spawn(read(77)));
    scene.tasks.run();
    assert_eq!(inside.take(), Some(Ok(())));
    assert_eq!(beyond.take(), Some(Err(PageError::OutOfRange)));
}

#[test]
fn other_block_sizes_are_refused_by_name() {
    let machine = Machine::new(64);
    for bytes in [0, 256, 3 * 4096, 4 << 20] {
        let made = BlocksOf::try_new(machine.memory, TestBlocks::new(bytes, 1));
        assert_eq!(made.err(), Some(BlocksError::BlockSize(bytes)));
    }
}

/// The answer of something that waits for nobody but the tasks.
trait Now: Future + Sized {
    fn now(self, tasks: &mut common::tasks::Tasks) -> Self::Output;
}

impl<F: Future> Now for F {
    fn now(self, tasks: &mut common::tasks::Tasks) -> F::Output {
        let mut future = std::pin::pin!(self);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..10 {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            tasks.run();
        }
        panic!("it waits");
    }
}
