//! Pages that change behind their object's back, while threads read them.

use alloc::{boxed::Box, sync::Arc};
use core::{
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use executor::time;
use kernel::memory::memory;
use mm::{PAGE_SIZE, PageIndex, TestPager, VmObject};

use crate::{
    check::{Outcome, ensure, in_time, storm},
    crew::Crew,
    pages::{self, SlowLoads},
    usage, wild,
};

const PAGES: usize = 6;
const READERS: usize = 8;
const NUMBER_BITS: u32 = 8;

/// What the threads and the test share.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    /// The version of each page that is in the backing store.
    stored: [AtomicU64; PAGES],
    /// The version that every access finds, or a later one, since the older ones were invalidated.
    oldest: [AtomicU64; PAGES],
    reads: AtomicUsize,
    wrong: AtomicUsize,
}

impl Counts {
    /// Each word of a page is its version and its number.
    fn fill(&self, page: PageIndex, bytes: &mut [u8]) {
        let number = page.as_u64();
        let word = self.stored[number as usize].load(Acquire) << NUMBER_BITS | number;
        bytes.as_chunks_mut().0.fill(word.to_le_bytes());
    }

    /// Reads the first and the last word of a page: the second is as new as the first, and that is not too old.
    fn read(&self, start: u64, number: usize) {
        let address = start + (number * PAGE_SIZE) as u64;
        let oldest = self.oldest[number].load(Acquire);
        let [first, last] = [0, PAGE_SIZE as u64 - 8].map(|at| wild::read(address + at));
        let is_right = |word: u64| word % (1 << NUMBER_BITS) == number as u64;
        let fits = is_right(first) && is_right(last) && oldest <= first >> NUMBER_BITS && first <= last;
        self.wrong.fetch_add(usize::from(!fits), Relaxed);
        self.reads.fetch_add(1, Relaxed);
    }
}

/// Once a page was invalidated no thread on any CPU reads what it held before, also where it was being loaded meanwhile.
pub(crate) async fn invalidate_storm() -> Outcome {
    let changes = 1000 * storm();
    usage::stays_equal(1, |_| async move {
        let counts = Arc::new(Counts::default());
        let content = counts.clone();
        let pager = TestPager::new(memory(), Box::new(move |page, bytes| content.fill(page, bytes)));
        let object = VmObject::new(memory(), pager.clone(), PAGES as u64);
        let slow = SlowLoads::of(&pager);
        let window = pages::window(&object, PAGES)?;
        let mut crew = Crew::default();
        for reader in 0..READERS {
            let (counts, window, mut number) = (counts.clone(), window.clone(), reader);
            crew.add("reader", move || {
                while !counts.stop.load(Relaxed) {
                    number = (number + 1 + reader % 2) % PAGES;
                    counts.read(window.start().as_u64(), number);
                }
            })?;
        }
        for change in 0..changes {
            let number = change * 5 % PAGES;
            let version = 1 + counts.stored[number].fetch_add(1, Release);
            let gone = object.invalidate(PageIndex::new(number as u64));
            in_time("no CPU uses the old page", gone).await?;
            counts.oldest[number].store(version, Release);
            if change % 3 == 0 {
                time::sleep(Duration::from_micros(100 * (change % 5) as u64)).await;
            }
        }
        counts.stop.store(true, Relaxed);
        crew.finish().await?;
        slow.stop().await?;
        let (wrong, reads, loads) = (counts.wrong.load(Relaxed), counts.reads.load(Relaxed), pager.loads());
        ensure!(wrong == 0, "{wrong} of {reads} reads found something old, or of another page");
        ensure!(loads > PAGES, "{loads} loads of pages that were invalidated {changes} times");
        Ok(())
    })
    .await
}
