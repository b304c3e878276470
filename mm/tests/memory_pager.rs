//! Pages that are bytes in memory.

mod common;

use common::tasks::{Tasks, block_on};
use common::{Machine, PAGE, page};
use mm::{MemoryPager, PAGE_SIZE, PageError, StoreError, VmObject};

/// Two pages and a half.
static BYTES: [u8; PAGE_SIZE * 5 / 2] = {
    let mut bytes = [0; PAGE_SIZE * 5 / 2];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % 251) as u8 + 1;
        at += 1;
    }
    bytes
};

#[test]
fn bytes_are_shown_and_zeros_after_them_and_nothing_beyond() {
    let machine = Machine::new(512);
    let pager = MemoryPager::read_only(machine.memory, &BYTES);
    assert_eq!(pager.pages(), 3);
    let object = VmObject::new(machine.memory, pager, 5);
    block_on(async move {
        let mut read = vec![0xff; 3 * PAGE_SIZE];
        object.read(0, &mut read).await.unwrap();
        assert!(read[..BYTES.len()] == BYTES && read[BYTES.len()..].iter().all(|&byte| byte == 0));
        assert_eq!(object.read(3 * PAGE, &mut [0]).await, Err(PageError::OutOfRange));
        object.write(0, &[1]).await.unwrap();
        let error = StoreError { page: page(0), error: PageError::ReadOnly };
        assert_eq!(object.store(page(0)..page(5)).await, Err(error));
    });
}

#[test]
fn frames_keep_what_is_stored_and_come_back_with_the_pager() {
    let machine = Machine::new(512);
    let before = machine.free();
    let mut run = machine.memory.frames().try_alloc_contiguous(4, 1).unwrap();
    run.as_bytes_mut().fill(3);
    let object = VmObject::new(machine.memory, MemoryPager::over(machine.memory, run), 4);
    let used = object.clone();
    block_on(async move {
        used.write(PAGE + 5, &[7, 8]).await.unwrap();
        used.store(page(0)..page(4)).await.unwrap();
        used.release(page(0)..page(4)).await;
        let mut read = [0; 4];
        used.read(PAGE + 4, &mut read).await.unwrap();
        assert_eq!(read, [3, 7, 8, 3]);
    });
    drop(object);
    assert_eq!(machine.free(), before);
}

#[test]
fn a_load_without_a_free_frame_waits_for_one() {
    let machine = Machine::new(512);
    let object = VmObject::new(machine.memory, MemoryPager::read_only(machine.memory, &BYTES), 3);
    executor::host::block_on_cpus(1, async {
        let mut taken: Vec<_> = std::iter::from_fn(|| machine.memory.frames().try_alloc()).collect();
        let mut tasks = Tasks::default();
        let reader = object.clone();
        let handle = tasks.spawn(async move { reader.read(PAGE, &mut [0; 8]).await });
        tasks.run();
        assert!(!handle.is_done());
        taken.pop();
        for _ in 0..4 {
            executor::yield_now().await;
            tasks.run();
        }
        assert_eq!(handle.take(), Some(Ok(())));
    });
}
