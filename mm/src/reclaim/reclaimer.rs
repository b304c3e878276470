//! The background task that keeps frames free: what it tries, and in which order.
//!
//! A shortage begins below the low mark and ends at the high one. It is a row of steps; each is the first of these that finds
//! something to do, and then the frames are counted again:
//!
//! | step | it goes on as long as |
//! | --- | --- |
//! | give clean pages back | some go, and those who wait get the frames |
//! | store dirty pages | some become clean now and then |
//! | write pages out to swap | some leave, and others than those that just came back |
//! | serve those who wait below the low mark, look at pages again | there are frames, or pages not looked at often enough |
//! | wait for devices | something comes of what they were asked for, five seconds each |
//! | end the largest space, refuse one who waits | there is one |

use core::sync::atomic::Ordering;
use core::time::Duration;

use executor::time::Instant;

use super::give_back;
use crate::frame::FrameStats;
use crate::swap::{SwapArea, SwapWrites, swap_out_some};
use crate::victims::{Silence, end_largest};
use crate::{Memory, write_back};

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
    let mut reclaimer = Reclaimer { memory, rounds: 0, circle: Circle::default(), waits: Waits::default() };
    loop {
        memory.frames().wait_until_short().await;
        reclaimer.end_shortage().await;
    }
}

/// What the task knows beyond one shortage.
struct Reclaimer {
    memory: &'static Memory,
    /// Rounds in a row that gave something back and left less than the low mark.
    rounds: u32,
    circle: Circle,
    waits: Waits,
}

/// What one shortage has tried so far. Steps that find nothing count up; what was found instead sets back.
#[derive(Default)]
struct Tried {
    /// Looks at all clean pages by which none went.
    fruitless: u32,
    /// Turns of write-back in which no page became clean.
    idle: u32,
    /// Rounds in which pages were stored, and none became clean.
    unmarked: u32,
    /// Looks at pages that turns of swap have left.
    looks_left: Option<usize>,
    /// Whether pages that leave for swap only come back.
    goes_round: bool,
    /// Pages that had become clean, and that had been stored, when this round began to store.
    cleaned: u64,
    stored: u64,
}

impl Reclaimer {
    /// Takes steps until there are enough frames, or nobody waits whom they could help.
    async fn end_shortage(&mut self) {
        let mut tried = Tried::default();
        while let Some(stats) = self.shortage().await {
            if self.give_back_clean(&stats, &mut tried).await
                || self.clean_dirty(&stats, &mut tried).await
                || self.swap_out(&stats, &mut tried).await
            {
                tried.looks_left = None;
                continue;
            }
            if self.look_again(&stats, &mut tried).await {
                continue;
            }
            let worth = self.waits.look(self.memory);
            let goes_on = self.wait_for_devices(&worth, &mut tried).await
                || self.end_largest(&worth).await
                || self.refuse().await;
            if !goes_on {
                return;
            }
        }
    }

    /// The state of the frames, unless there are enough.
    async fn shortage(&mut self) -> Option<FrameStats> {
        // Frames in quarantine are the nearest; nobody is told that there is none while there are any.
        if let Some(moment) = self.memory.frames().left_behind() {
            self.memory.forgotten(moment).await;
        }
        let stats = self.memory.frames().stats();
        if stats.free >= stats.high {
            self.waits.rest(self.memory);
            return None;
        }
        if stats.free >= stats.low {
            self.rounds = 0;
        }
        Some(stats)
    }

    /// Whether what is given back helps those who wait.
    fn counts(&self) -> bool {
        self.rounds < ROUNDS
    }

    async fn give_back_clean(&mut self, stats: &FrameStats, tried: &mut Tried) -> bool {
        // Each page is looked at once: one that was just loaded stays until its thread had a chance to run.
        let is_patient = tried.fruitless < PATIENCE;
        let looks = if is_patient { stats.clean } else { stats.clean * self.memory.policy().looks() };
        if give_back(self.memory, stats.high - stats.free, looks).await == 0 || !self.counts() {
            return false;
        }
        tried.fruitless = 0;
        self.rounds += 1;
        true
    }

    async fn clean_dirty(&mut self, stats: &FrameStats, tried: &mut Tried) -> bool {
        (tried.cleaned, tried.stored) = (self.memory.cleaned(), self.memory.stored());
        if stats.dirty == 0 || write_back::clean_oldest(self.memory, stats.high - stats.free).await == 0 {
            return false;
        }
        // It goes when it was looked at; where all of it is in use, some goes even so.
        tried.fruitless = PATIENCE.min(tried.fruitless + 1);
        tried.idle = if self.memory.cleaned() == tried.cleaned { tried.idle + 1 } else { 0 };
        // A device that does not answer holds up nobody who can be helped otherwise.
        tried.idle < PATIENCE
    }

    async fn swap_out(&mut self, stats: &FrameStats, tried: &mut Tried) -> bool {
        tried.goes_round = self.circle.is_closed(self.memory);
        if tried.goes_round {
            return false;
        }
        let until = executor::time::now() + TURN;
        let target = stats.high - stats.free;
        if swap_out_some(self.memory, target, &mut tried.looks_left, Some(until)).await == 0 {
            return false;
        }
        self.circle.goes_on(self.memory);
        (tried.fruitless, self.rounds) = (0, 0);
        true
    }

    /// Serves those who wait, and sees whether another look at pages may find what this one has not.
    async fn look_again(&mut self, stats: &FrameStats, tried: &mut Tried) -> bool {
        // A look at all pages that is over begins anew the next time.
        let all_seen = tried.looks_left.take_if(|looks| *looks == 0).is_some();
        // Nothing comes at once, so nobody waits for it while there are frames that are nobody's.
        if (self.counts() || tried.goes_round) && self.memory.frames().serve_waiting() > 0 {
            executor::yield_now().await;
            return true;
        }
        // Where the turn was over before all pages were looked at, and nothing is on its way, the next goes on. CPUs that
        // compute take their time, and so does the listing of what was there before swap.
        let is_idle = self.memory.swap().is_some_and(|area| !area.writes().are_under_way);
        if !tried.goes_round && is_idle && !all_seen {
            return true;
        }
        if stats.clean > 0 && tried.fruitless < PATIENCE && self.counts() {
            tried.fruitless += 1;
            grace(self.memory).await;
            return true;
        }
        // The nearest frames: those that CPUs give up, and those whose pages were stored since and are marked next. A page
        // that is written all the time is stored again and again and never marked, so that is believed a few times.
        let has_stored = self.memory.stored() != tried.stored;
        let is_cleaned = self.memory.cleaned() != tried.cleaned;
        tried.unmarked = if is_cleaned { 0 } else { tried.unmarked + u32::from(has_stored) };
        self.memory.frames().stats().quarantined > 0 || has_stored && tried.unmarked < PATIENCE
    }

    /// Devices have what will be clean or free, however long that takes, as long as something comes of it at all. One
    /// of which nothing came is not waited for again before it does.
    async fn wait_for_devices(&mut self, worth: &Worth, tried: &mut Tried) -> bool {
        if worth.stores {
            grace(self.memory).await;
            return true;
        }
        let Some(until) = worth.fills else { return false };
        // What fills a frame says when it has ended.
        let _either_way = executor::time::timeout_at(until, self.memory.frames().wait_until_short()).await;
        tried.fruitless = 0;
        true
    }

    async fn end_largest(&mut self, worth: &Worth) -> bool {
        self.rounds = 0;
        end_largest(self.memory, worth.swap_answers).await
    }

    /// Gives out what is left, or tells one who waits that there is nothing. False if nobody waits.
    async fn refuse(&mut self) -> bool {
        if self.memory.frames().serve_the_rest() > 0 {
            executor::yield_now().await;
            return true;
        }
        if !self.memory.frames().name_victim() {
            return false;
        }
        grace(self.memory).await;
        true
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
