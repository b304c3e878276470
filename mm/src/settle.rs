//! The loop around every touch of a page: try under short locks; wait for what is missing with none held;
//! try again from the start, because nothing seen before a wait is believed after it.

use alloc::boxed::Box;
use core::future::Future;

use crate::fallible::{Shared, try_box};
use crate::frame::Moment;
use crate::memory::Counters;
use crate::transfer::Transfer;
use crate::{Denial, Frame, FrameRun, Memory, OutOfMemory, PageError, PageIndex};

/// What one try came to.
pub(crate) enum Attempt {
    /// The page was used as wanted.
    Done,
    /// Something changed between the look and the commit.
    Again,
    /// A frame is needed, for the page or for a page table, and there is none.
    NeedsFrame,
    /// 2 MiB in one piece might do more than a frame.
    NeedsLarge,
    /// The page would become dirty, and too many are: it is waited until some have been stored.
    TooManyDirty,
    /// The page is being loaded, or what it held before is still being stored.
    Wait(Shared<Transfer>),
    /// The page was dropped, and some CPU may still use what it showed.
    Forgetting(Moment),
    /// It cannot be.
    Denied(Denial),
}

impl Attempt {
    /// There is no frame for a table, or for the page of zeros. It is waited for where any frame will do.
    pub(crate) fn needs_table(memory: &Memory) -> Self {
        if memory.tables_share_frames() { Attempt::NeedsFrame } else { Attempt::Denied(Denial::OutOfMemory) }
    }

    /// The heap is full. Who waits for a frame waits until there is memory again; who has done so is denied.
    pub(crate) fn heap_is_full(spare: &Option<Frame>) -> Self {
        if spare.is_none() { Attempt::NeedsFrame } else { Attempt::Denied(Denial::OutOfMemory) }
    }

    /// It cannot be; for want of memory as above.
    pub(crate) fn denied(why: Denial, spare: &Option<Frame>) -> Self {
        if why == Denial::OutOfMemory { Self::heap_is_full(spare) } else { Attempt::Denied(why) }
    }
}

/// A page that is there, as it is offered to who touched it.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) frame: u64,
    /// Whether it may be shown writable.
    pub(crate) writable: bool,
    /// Where it has just taken the place of another frame, that one. Who takes the offer sees to it that the page shows
    /// that no more where it was touched; who does not leaves this to who made the offer.
    pub(crate) instead_of: Option<u64>,
}

impl Offer {
    pub(crate) fn new(frame: u64, writable: bool) -> Self {
        Self { frame, writable, instead_of: None }
    }
}

/// Uses a page that is offered, once and with its object's lock held. A closure mostly; a fault that is answered at once
/// has a type of its own, so that its few instructions stand wherever they are used.
pub(crate) trait Commit {
    fn commit(self, offer: Offer, spare: &mut Option<Frame>) -> Attempt;
}

impl<F: FnOnce(Offer, &mut Option<Frame>) -> Attempt> Commit for F {
    #[inline]
    fn commit(self, offer: Offer, spare: &mut Option<Frame>) -> Attempt {
        self(offer, spare)
    }
}

/// A touch that can be tried again and again, and what its end means.
pub(crate) trait Touch {
    /// What the caller of the future gets.
    type Output;

    /// One try, under short locks. `spare` is a frame that was waited for.
    fn attempt(&mut self, spare: &mut Option<Frame>) -> Attempt;

    /// One try with the piece that the last one asked for, cleared; `None`: there is none to spare. True if the touch is
    /// done; it does not ask again.
    fn attempt_large(&mut self, _run: Option<FrameRun>) -> bool {
        false
    }

    /// The touch is done, after waiting for a load or not, or denied.
    fn end(&mut self, result: Result<Waited, Denial>) -> Self::Output;
}

/// Whether a load was waited for.
pub(crate) type Waited = bool;

/// A touch made of its attempt alone, whose end is given back as it is.
pub(crate) struct Plain<F>(F);

pub(crate) fn plain<F: FnMut(&mut Option<Frame>) -> Attempt>(attempt: F) -> Plain<F> {
    Plain(attempt)
}

impl<F: FnMut(&mut Option<Frame>) -> Attempt> Touch for Plain<F> {
    type Output = Result<Waited, Denial>;

    fn attempt(&mut self, spare: &mut Option<Frame>) -> Attempt {
        (self.0)(spare)
    }

    fn end(&mut self, result: Result<Waited, Denial>) -> Self::Output {
        result
    }
}

/// So often a touch gives a frame up for a load of the page that it was to be used with.
const ROBBED: u8 = 4;

/// Tries until the touch is done or denied.
///
/// It is part of every parked thread's memory, so it is kept small: one `async` block with nothing in it
/// but the touch and what is waited for, not wrapped in another.
///
/// # Cancellation
/// Dropping the future frees the frame it was given, if any, and leaves loads to themselves.
#[expect(clippy::manual_async_fn, reason = "the future of an `async fn` is larger")]
pub(crate) fn settle<T: Touch>(memory: &'static Memory, mut touch: T) -> impl Future<Output = T::Output> {
    async move {
        let mut spare = None;
        let (mut waited, mut robbed) = (false, 0_u8);
        loop {
            let load = match touch.attempt(&mut spare) {
                Attempt::Done => {
                    Counters::count(&memory.counters.settled);
                    return touch.end(Ok(waited));
                }
                Attempt::Denied(why) => return touch.end(Err(why)),
                Attempt::Again => {
                    Counters::count(&memory.counters.retries);
                    continue;
                }
                Attempt::NeedsFrame => None,
                Attempt::NeedsLarge => {
                    // Rare as well, see below.
                    let run = match try_box(memory.large_run()) {
                        Ok(run) => Box::into_pin(run).await,
                        Err(OutOfMemory) => None,
                    };
                    if touch.attempt_large(run) {
                        Counters::count(&memory.counters.settled);
                        return touch.end(Ok(waited));
                    }
                    continue;
                }
                Attempt::TooManyDirty => {
                    // Others may need it to store theirs.
                    spare = None;
                    match try_box(memory.wait_to_dirty()) {
                        Ok(fewer) => Box::into_pin(fewer).await,
                        Err(OutOfMemory) => return touch.end(Err(Denial::OutOfMemory)),
                    }
                    let is_done = matches!(attempt_again(&mut touch, &mut spare), Attempt::Done);
                    // What this one has not used, because the page is dirty by now, is for the next.
                    memory.resume_writes();
                    if is_done {
                        Counters::count(&memory.counters.settled);
                        return touch.end(Ok(waited));
                    }
                    continue;
                }
                Attempt::Wait(load) => Some(load),
                Attempt::Forgetting(moment) => {
                    memory.forget_soon(moment);
                    if memory.frames().is_over(moment) {
                        continue;
                    }
                    // Rare, and larger than what is there anyway.
                    match try_box(memory.forgotten(moment)) {
                        Ok(forgotten) => Box::into_pin(forgotten).await,
                        Err(OutOfMemory) => return touch.end(Err(Denial::OutOfMemory)),
                    }
                    continue;
                }
            };
            let denied = match load {
                None => match memory.frames().alloc().await {
                    Ok(frame) => {
                        spare = Some(frame);
                        continue;
                    }
                    Err(_) => Denial::OutOfMemory,
                },
                Some(load) => {
                    waited = true;
                    // The load may need just this one. But a page that leaves each time before its next frame comes
                    // would go round for ever: so in the end that frame is there already when the page comes.
                    if spare.take_if(|_| robbed < ROBBED).is_some() {
                        robbed += 1;
                    }
                    // A pager may have answered within the call.
                    let ended = match load.outcome() {
                        Some(ended) => ended,
                        None => load.wait().await,
                    };
                    match ended {
                        Ok(()) => continue,
                        Err(error) => denial(load.page(), error),
                    }
                }
            };
            return touch.end(Err(denied));
        }
    }
}

/// A try after a rare wait, apart from the usual one: that stays where it is made.
#[cold]
#[inline(never)]
fn attempt_again<T: Touch>(touch: &mut T, spare: &mut Option<Frame>) -> Attempt {
    touch.attempt(spare)
}

fn denial(page: PageIndex, error: PageError) -> Denial {
    match error {
        PageError::OutOfMemory => Denial::OutOfMemory,
        PageError::Corrupted => Denial::Corrupted { page },
        PageError::Deadlock => Denial::Deadlock,
        error => Denial::Io { page, error },
    }
}
