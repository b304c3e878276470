//! Giving clean pages back when frames run short: in the order in which they were last looked at, as the memory's
//! [`ReclaimPolicy`](crate::ReclaimPolicy) says.
//!
//! Who knows which page goes need not look at pages at all, and calls [`VmObject::evict`].
//!
//! Pages go in batches: all of a batch are taken out of the page tables, all CPUs are waited for once, and those
//! that nobody touched meanwhile are taken out. What is done where nothing goes: see [`reclaimer()`].

use crate::frame::{Candidate, Outcome, PageList};
use crate::vm_object::Judge;
use crate::{Memory, PageIndex, VmObject};

mod reclaimer;

pub use reclaimer::reclaimer;

/// Pages that are looked at before others get a turn, and pages that go with one wait for all CPUs.
pub(crate) const BATCH: usize = 64;

/// Gives back up to `target` clean pages, those unused for longest first, and returns how many. Looks at
/// each page as often as the policy has it at most. For tasks, which poll it until it is done or drop it: one that reclaims
/// holds up the others. See the crate's head.
///
/// # Cancellation
/// Dropping the future keeps what was given back; pages that were leaving stay until somebody touches or reclaims
/// them.
pub async fn reclaim(memory: &'static Memory, target: usize) -> usize {
    give_back(memory, target, memory.frames().stats().clean * memory.policy().looks()).await
}

async fn give_back(memory: &'static Memory, target: usize, looks: usize) -> usize {
    let (mut freed, mut looked) = (0, 0);
    let mut batch = Batch::new();
    while freed < target && looked < looks {
        if looked > 0 {
            executor::yield_now().await;
        }
        let _turn = memory.two_steps.lock().await;
        batch.begin(memory, (looks - looked).min(BATCH), target - freed);
        if batch.looked == 0 {
            break;
        }
        looked += batch.looked;
        if batch.leaving > 0 {
            memory.forgotten(memory.frames().moment()).await;
            freed += batch.end(memory);
        }
    }
    freed
}

impl VmObject {
    /// Gives one page back if it is clean, whether it was used lately or not, and says whether it did. The frame is free
    /// then. For those who have a policy of their own: they need not run the [`reclaimer()`].
    ///
    /// A page that somebody touches before all CPUs have forgotten it stays. Where an overlay has no page of its own, its
    /// base's goes. For tasks, as [`reclaim`] is.
    ///
    /// # Cancellation
    /// The page stays; nothing shows it until it is touched.
    pub async fn evict(&self, page: PageIndex) -> bool {
        let memory = self.memory();
        let _turn = memory.two_steps.lock().await;
        let object = self.below(page.as_u64()).map_or(self, |base| base);
        let Some(leaving) = object.begin_to_drop(page.as_u64()) else { return false };
        memory.forgotten(memory.frames().moment()).await;
        object.end_evictions(&mut [leaving]) > 0
    }
}

/// Pages that are looked at together, those that leave in front.
struct Batch {
    candidates: [Candidate; BATCH],
    leaving: usize,
    looked: usize,
}

impl Batch {
    fn new() -> Self {
        Self { candidates: [Candidate::default(); BATCH], leaving: 0, looked: 0 }
    }

    /// Looks at the oldest clean pages, at most so many, until enough are leaving. What was looked at before is forgotten.
    fn begin(&mut self, memory: &'static Memory, looks: usize, target: usize) {
        (self.leaving, self.looked) = (0, 0);
        let policy = memory.policy();
        while self.looked < looks && self.leaving < target {
            let most = (looks - self.looked).min(target - self.leaving);
            let places = &mut self.candidates[self.leaving..][..most];
            let found = memory.frames().next_to_look_at(PageList::Clean, policy, places);
            if found == 0 {
                break;
            }
            self.looked += found;
            let candidates = &mut places[..found];
            let object = candidates[0].page.object;
            if candidates.iter().any(|candidate| candidate.page.object != object) {
                candidates.sort_unstable_by_key(|candidate| candidate.page.object);
            }
            let mut leaving = 0;
            for of_object in candidates.chunk_by_mut(|one, next| one.page.object == next.page.object) {
                if let Some(object) = memory.object(of_object[0].page.object) {
                    leaving += object.begin_evictions(of_object, Judge::Policy(policy));
                }
            }
            let first = self.leaving;
            self.leaving += leaving;
            if leaving == found || leaving == 0 {
                continue;
            }
            let mut place = first;
            for at in first..first + found {
                if self.candidates[at].outcome == Outcome::Leaving {
                    self.candidates.swap(at, place);
                    place += 1;
                }
            }
        }
    }

    /// Takes out those that are still leaving. Returns how many.
    fn end(&mut self, memory: &'static Memory) -> usize {
        let gone = |of_object: &mut [Candidate]| {
            let object = memory.object(of_object[0].page.object);
            object.map_or(0, |object| object.end_evictions(of_object))
        };
        let leaving = &mut self.candidates[..self.leaving];
        leaving.chunk_by_mut(|one, next| one.page.object == next.page.object).map(gone).sum()
    }
}
