//! Giving clean pages back when frames run short: in the order in which they were last looked at, as the memory's
//! [`ReclaimPolicy`](crate::ReclaimPolicy) says.
//!
//! Where nothing goes, dirty pages are stored, and then what no pager has is written to swap.
//!
//! Who knows which page goes need not look at pages at all, and calls [`VmObject::evict`].
//!
//! Pages go in batches: all of a batch are taken out of the page tables, all CPUs are waited for once, and those
//! that nobody touched meanwhile are taken out. The same task waits for what others have left in quarantine.

use core::sync::atomic::Ordering;
use core::time::Duration;

use executor::time::Instant;

use crate::frame::{Candidate, Outcome, PageList};
use crate::swap::{SwapArea, SwapWrites, swap_out_some};
use crate::victims::{Silence, end_largest};
use crate::vm_object::Judge;
use crate::{Memory, PageIndex, VmObject, write_back};

/// Pages that are looked at before others get a turn, and pages that go with one wait for all CPUs.
pub(crate) const BATCH: usize = 64;
/// How long the victim of an empty memory has to give its frames back before the next is named, and a page
/// that was just loaded has to be used. Who begins to wait meanwhile is served from what is free below the low mark.
const GRACE: Duration = Duration::from_millis(10);
/// How long one turn waits for a disk that pages leave for. What it writes goes on.
const TURN: Duration = Duration::from_millis(200);
/// After so many looks at all pages, a grace period after each, one that is in use must go.
const PATIENCE: u32 = 3;
/// After so many rounds that gave something back and yet left less than the low mark, it does not count any more: the same
/// few pages go round, those that everybody needs and nobody gets to use.
const ROUNDS: u32 = 64;

/// The background task that keeps frames free: spawned once for each [`Memory`]. It sleeps until the free
/// frames fall below the low mark, and gives pages back until the high mark is reached. When there is nothing to give back
/// and nothing on its way, the largest space gives way (see [`Victims`](crate::Victims)), or one who waits is refused.
///
/// # Cancellation
/// May be dropped at any time; waits for memory may then never end.
pub async fn reclaimer(memory: &'static Memory) -> ! {
    let (mut rounds, mut circle, mut waits) = (0, Circle::default(), Waits::default());
    loop {
        memory.frames().wait_until_short().await;
        let (mut fruitless, mut idle, mut unmarked) = (0, 0, 0);
        // Looks at pages that turns of swap have left.
        let mut looks_left = None;
        loop {
            // Frames in quarantine are the nearest; nobody is told that there is none while there are any.
            if let Some(moment) = memory.frames().left_behind() {
                memory.forgotten(moment).await;
            }
            let stats = memory.frames().stats();
            if stats.free >= stats.high {
                waits.rest(memory);
                break;
            }
            if stats.free >= stats.low {
                rounds = 0;
            }
            let counts = rounds < ROUNDS;
            // Each page is looked at once: one that was just loaded stays until its thread had a chance to run.
            let looks =
                if fruitless < PATIENCE { stats.clean } else { stats.clean * memory.policy().looks() };
            let gone = give_back(memory, stats.high - stats.free, looks).await;
            if gone > 0 && counts {
                (fruitless, rounds, looks_left) = (0, rounds + 1, None);
                continue;
            }
            let (cleaned, stored) = (memory.cleaned(), memory.stored());
            if stats.dirty > 0 && write_back::clean_oldest(memory, stats.high - stats.free).await > 0 {
                // It goes when it was looked at; where all of it is in use, some goes even so.
                fruitless = PATIENCE.min(fruitless + 1);
                idle = if memory.cleaned() == cleaned { idle + 1 } else { 0 };
                // A device that does not answer holds up nobody who can be helped otherwise.
                if idle < PATIENCE {
                    looks_left = None;
                    continue;
                }
            }
            let goes_round = circle.is_closed(memory);
            if !goes_round {
                let until = executor::time::now() + TURN;
                let target = stats.high - stats.free;
                if swap_out_some(memory, target, &mut looks_left, Some(until)).await > 0 {
                    looks_left = None;
                    circle.goes_on(memory);
                    (fruitless, rounds) = (0, 0);
                    continue;
                }
            }
            // A look at all pages that is over begins anew the next time.
            let all_seen = looks_left.take_if(|looks| *looks == 0).is_some();
            // Nothing comes at once, so nobody waits for it while there are frames that are nobody's.
            if (counts || goes_round) && memory.frames().serve_waiting() > 0 {
                executor::yield_now().await;
                continue;
            }
            // Where the turn was over before all pages were looked at, and nothing is on its way, the next goes on. CPUs that
            // compute take their time, and so does the listing of what was there before swap.
            let is_idle = memory.swap().is_some_and(|area| !area.writes().are_under_way);
            if !goes_round && is_idle && !all_seen {
                continue;
            }
            if stats.clean > 0 && fruitless < PATIENCE && counts {
                fruitless += 1;
                grace(memory).await;
                continue;
            }
            // The nearest frames: those that CPUs give up, and those whose pages were stored since and are marked next. A page
            // that is written all the time is stored again and again and never marked, so that is believed a few times.
            let has_stored = memory.stored() != stored;
            unmarked = if memory.cleaned() == cleaned { unmarked + u32::from(has_stored) } else { 0 };
            if stats.quarantined > 0 || has_stored && unmarked < PATIENCE {
                continue;
            }
            // Devices have what will be clean or free, however long that takes, as long as something comes of it at all. One
            // of which nothing came is not waited for again before it does.
            let worth = waits.look(memory);
            if worth.stores {
                grace(memory).await;
                continue;
            }
            if let Some(until) = worth.fills {
                // What fills a frame says when it has ended.
                let _either_way = executor::time::timeout_at(until, memory.frames().wait_until_short()).await;
                fruitless = 0;
                continue;
            }
            rounds = 0;
            if end_largest(memory, worth.swap_answers).await {
                continue;
            }
            if memory.frames().serve_the_rest() > 0 {
                executor::yield_now().await;
                continue;
            }
            if !memory.frames().name_victim() {
                break;
            }
            grace(memory).await;
        }
    }
}

/// How long each kind of device has done nothing that helps: one that never answers takes no time from another that was asked
/// later, nor does one whose pages are in use again each time. What fills frames helps with each answer.
#[derive(Default)]
struct Waits {
    stores: Silence,
    swap: Silence,
    /// Of swap, whatever comes of it.
    swap_answers: Silence,
    fills: Silence,
}

/// Which devices are worth waiting for.
struct Worth {
    /// Those that pages are written to, swap among them.
    stores: bool,
    /// Those that have frames, until when.
    fills: Option<Instant>,
    /// Whether swap has answered what it was asked for lately.
    swap_answers: bool,
}

impl Waits {
    fn look(&mut self, memory: &Memory) -> Worth {
        let write_back = &memory.write_back;
        let writes = memory.swap().map(SwapArea::writes).unwrap_or_default();
        let SwapWrites { are_under_way, left, ended } = writes;
        let is_filled = memory.filling.load(Ordering::Acquire) > 0;
        let stores = self.stores.ends(memory.is_storing(), write_back.marked(), write_back.ended());
        let swap = self.swap.ends(are_under_way, left, ended);
        let answers = self.swap_answers.ends(are_under_way, ended, ended);
        let fills = self.fills.ends(is_filled, memory.fills_ended(), memory.fills_ended());
        Worth {
            stores: stores.or(swap).is_some(),
            fills,
            swap_answers: are_under_way == answers.is_some() && is_filled == fills.is_some(),
        }
    }

    /// Nobody waits any more.
    fn rest(&mut self, memory: &Memory) {
        let written = memory.swap().map(SwapArea::writes).unwrap_or_default().ended;
        self.stores.rest(memory.write_back.ended());
        self.swap.rest(written);
        self.swap_answers.rest(written);
        self.fills.rest(memory.fills_ended());
    }
}

/// Pages that leave for swap and come back while no touch comes to its end: one that came for a touch, whose next frame is
/// waited for, leaves before that comes. Nothing may leave any more then: a frame that has left is promised at once, and
/// whoever gets it brings the page back with it.
#[derive(Default)]
struct Circle {
    settled: u64,
    went_round: u64,
    rounds: u32,
}

impl Circle {
    /// Pages have left. That is one more round if one has come back since the last.
    fn goes_on(&mut self, memory: &Memory) {
        let before = core::mem::replace(&mut self.went_round, memory.went_round());
        self.rounds += u32::from(self.went_round != before);
    }

    /// Whether one more round would not help.
    fn is_closed(&mut self, memory: &Memory) -> bool {
        let before = core::mem::replace(&mut self.settled, memory.settled());
        if self.settled != before {
            self.rounds = 0;
        }
        self.rounds >= ROUNDS
    }
}

/// Waits for a grace period, and serves those who begin to wait in it from what is free below the low mark.
async fn grace(memory: &'static Memory) {
    let end = executor::time::now() + GRACE;
    while executor::time::timeout_at(end, memory.frames().wait_until_short()).await.is_ok() {
        memory.frames().serve_waiting();
    }
}

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
    /// then. For those who have a policy of their own: they need not run the [`reclaimer`].
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
