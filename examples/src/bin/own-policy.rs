//! A reclaim policy of one's own. A loop over a little more than memory holds is the worst case of every policy that lets
//! the page go which was used longest ago: it is the next that is needed. Dice do better.
// qemu: -m 64M
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kernel::{memory::memory, thread, window::Window};
use mm::{Observation, PAGE_SIZE, Protection, ReclaimPolicy, SecondChance, TestPager, Verdict, VmObject};

/// One page of four goes, whatever was done with it.
struct Dice(AtomicU32);

impl ReclaimPolicy for Dice {
    fn name(&self) -> &'static str {
        "dice"
    }

    /// So that one of them is sure to say yes, nearly.
    fn looks(&self) -> usize {
        32
    }

    fn judge(&self, page: Observation) -> Verdict {
        // The generator of Numerical Recipes; its upper bits are the random ones.
        let next = |seed: u32| Some(seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let seed = self.0.fetch_update(Relaxed, Relaxed, next).unwrap_or_default();
        if seed >> 30 == 0 { Verdict::Evict } else { Verdict::Keep(page.age) }
    }
}

static DICE: Dice = Dice(AtomicU32::new(1));
/// More than there is memory for.
const PAGES: usize = 64 << 20 >> 12;
const ROUNDS: usize = 4;

kernel::entry!(main);

async fn main() {
    for policy in [&SecondChance as &'static dyn ReclaimPolicy, &DICE] {
        memory().set_policy(policy);
        let pager = TestPager::new(memory(), Box::new(|index, page| page.fill(index.as_u64() as u8)));
        let object = VmObject::new(memory(), pager.clone(), PAGES as u64);
        let window =
            Window::map(object, PAGES * PAGE_SIZE, Protection::READ).expect("there is room for a window");
        let reader = thread::spawn("reader", move || {
            for (number, page) in (0..ROUNDS).flat_map(|_| window.as_slice().chunks(PAGE_SIZE).enumerate()) {
                assert_eq!(page[0], number as u8);
            }
        });
        reader.expect("there is memory for a thread").await;
        kernel::println!("{}: {} loads for {} touches", policy.name(), pager.loads(), PAGES * ROUNDS);
    }
    kernel::exit(0)
}
