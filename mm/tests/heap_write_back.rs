//! With a full heap and no free frame, one write-out can always finish.

mod common;
mod limited_heap;

use std::sync::Arc;

use common::{Machine, PAGE, page};
use limited_heap::{FULL, keep_for_write_back, now, use_up_transfers, with_heap};
use mm::write_back::clean_oldest;
use mm::{FlushError, PageError, PageRequest, PageState, Pager, StoreRequest, VmObject};

/// Completes everything at once, and takes nothing from the heap.
struct AtOnce;

impl Pager for AtOnce {
    fn name(&self) -> &str {
        "at once"
    }

    fn load(&self, mut request: PageRequest) {
        let result = if request.try_attach() { Ok(()) } else { Err(PageError::OutOfMemory) };
        request.complete(result);
    }

    fn store(&self, request: StoreRequest) {
        request.complete(Ok(()));
    }
}

#[test]
fn a_page_is_written_out_with_a_full_heap_and_no_frame() {
    for overlaid in [false, true] {
        let machine = Machine::new(64);
        let base = VmObject::new(machine.memory, Arc::new(AtOnce), 8);
        let object = if overlaid { VmObject::overlay(base.clone()) } else { base.clone() };
        for index in 0..3 {
            now(object.write(index * 2 * PAGE, &[7])).unwrap();
        }
        use_up_transfers(machine.memory);
        let _frames: Vec<_> = std::iter::from_fn(|| machine.memory.frames().try_alloc()).collect();
        let dirty = |index: u64| matches!(object.state(page(index * 2)), PageState::Dirty { .. });
        assert_eq!(with_heap(FULL, || now(clean_oldest(machine.memory, 1))), 0, "without a reserve");
        assert!((0..3).all(dirty));
        // The three went to the end of the list, in their order.
        keep_for_write_back(12);
        assert_eq!(with_heap(FULL, || now(clean_oldest(machine.memory, 1))), 1);
        assert!(keep_for_write_back(0) < PAGE as usize, "no page of the reserve is taken for one request");
        assert_eq!([0, 1, 2].map(dirty), [false, true, true]);
        // Nothing was lost on the way: with memory, all goes on.
        assert_eq!(now(clean_oldest(machine.memory, 8)), 2);
        assert_eq!(machine.memory.write_back_stats().dirty, 0);
    }
}

#[test]
fn what_was_written_out_with_a_full_heap_is_flushed_with_one() {
    let machine = Machine::new(64);
    let object = VmObject::new(machine.memory, Arc::new(AtOnce), 8);
    now(object.write(0, &[7])).unwrap();
    now(object.store(page(0)..page(8))).unwrap();
    now(object.mark(page(0)..page(8)));
    use_up_transfers(machine.memory);
    let refused = with_heap(FULL, || now(object.flush()));
    assert_eq!(refused, Err(FlushError::Pager(PageError::OutOfMemory)), "without a reserve");
    keep_for_write_back(1);
    assert_eq!(with_heap(FULL, || now(object.flush())), Ok(()));
    assert!(keep_for_write_back(0) < PAGE as usize);
}
