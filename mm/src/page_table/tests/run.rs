//! Pages that are looked at and taken out one after the other, under one hold of the lock.

use executor::lock::SpinLock;

use super::*;
use crate::page_entry::ACCESSED;

const FRAME: u64 = 0x4_0000;

#[test]
fn pages_of_two_tables_are_taken_out_in_any_order_and_counted_as_one_by_one() {
    let mut table = tables(64, PageSize::Size4KiB);
    let pages = 1024;
    segment(&mut table, BASE, pages * PAGE_BYTES, FRAME * PAGE_BYTES).expect("room");
    table.deepest(BASE).0.fetch_or(ACCESSED, Ordering::Relaxed);
    let lock = SpinLock::new("page table", table);
    // From one table to the other and back, each page twice.
    let there_and_back = (0..pages / 2).flat_map(|page| [page, page + pages / 2]);
    let mut run = Run::new(lock.lock());
    for page in there_and_back {
        let (place, frame) = (at(BASE + page * PAGE_BYTES), FRAME + page);
        assert_eq!(run.take_accessed(place, frame + 1), None, "it shows another frame");
        let seen = Leaf { frame, accessed: page == 0, dirty: false };
        assert_eq!(run.take_accessed(place, frame), Some(seen));
        assert_eq!(run.take_accessed(place, frame), Some(Leaf { accessed: false, ..seen }));
        if page > 0 {
            assert_eq!(run.unmap_shown(place, frame), Some(seen));
            assert_eq!(run.unmap_shown(place, frame), None, "it is gone");
        }
    }
    drop(run);
    assert_eq!(lock.lock().audit(), 3, "one way to the first page is left, and its counts are right");
    assert_eq!(lock.lock().resident, 1);
    assert!(Run::new(lock.lock()).unmap_shown(at(BASE), FRAME).is_some());
    let table = lock.into_inner();
    assert_eq!((table.audit(), table.resident), (0, 0), "the tables went with their last page");
}
