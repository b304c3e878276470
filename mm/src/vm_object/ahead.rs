//! Reading ahead: pages that nobody has asked for yet, loaded with those that somebody has.
//!
//! A fault at the page where the last turn ended is one more of a sequence: the window doubles, up to 32 pages. A fault
//! anywhere else is a miss: the window is halved there. A few sequences are followed at the same time, because several
//! threads read parts of one object. When the second half of a turn that was waited for is in use, or any of one that was
//! not, the next turn begins, so the device works while the reader does. A reader that comes to a page before the device has
//! read it is the faster of the two: then its turns double, up to four windows, in fewer and larger requests of the device.
//!
//! What is read ahead is worth nothing yet. It takes frames only while there are some to spare, its errors are nobody's,
//! and it counts as not used, so it is the first to be given back.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | touch of a page that is being read ahead | waits as for any load; if it comes to nothing, the touch loads the page itself |
//! | release or invalidate | `LoadingInvalidated`, as for any load |
//! | unmap, end of the last user | nothing: the pages belong to the object |
//! | memory becomes short | requests without a frame end with nothing; the next fault finds its page missing, and the window is halved |
//! | many pages that will be needed | at most 256 of an object's are under way; what is beyond them is left |
//! | several threads | the window is changed under the object's lock; each page is begun by one of them |

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::{Inner, VmObject};
use crate::page_index_map::Enter;
use crate::page_state::{PageEntry, PageState};
use crate::trace::Asked;
use crate::{Advice, PageEvent, PageRequest, Requests};

/// The largest window, in pages.
pub(crate) const WINDOW: u64 = 32;
/// Larger turns end at a multiple of this, as mapping of neighbours does.
const ALIGN: u64 = 16;
/// Pages of an object that nobody waits for, as many as are under way at the same time.
const UNDER_WAY: usize = 256;
/// Windows that a turn has at most.
const WINDOWS: u64 = 4;
/// Sequences that are followed at the same time.
const STREAMS: usize = 8;

/// Sequences of touches, the latest first.
#[derive(Default)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Stream {
    /// The first page that was not asked for.
    end: u64,
    /// How many pages a window has; 0 where there is no sequence.
    window: u64,
    /// How many the last turn has asked for.
    asked: u64,
    /// Nobody has waited for the last turn.
    ahead: bool,
    /// How many windows are asked for at a time, when that is not one.
    windows: u64,
}

impl Stream {
    /// Asks for pages from `start` to `end`.
    fn ask(&mut self, start: u64, end: u64) -> u64 {
        (self.end, self.asked, self.ahead) = (end, end - start, false);
        end
    }

    /// Asks for the pages after those of the last turn, and more of them.
    fn ask_for_more(&mut self, most: u64) -> u64 {
        self.window = (self.window * 2).clamp(1, most);
        let pages = self.window * self.windows.max(1);
        let (start, mut end) = (self.end, self.end + pages);
        if self.window >= ALIGN {
            end = end.next_multiple_of(ALIGN).min(start + pages.max(most));
        }
        self.ask(start, end)
    }

    /// Whether the page is one of the last turn's.
    fn has(&self, index: u64) -> bool {
        index < self.end && self.end - index <= self.asked
    }
}

impl Streams {
    /// A page has to be loaded, and `most` pages at once are allowed. Answers where those end that should be. Who says
    /// that the pages are read in order has all of them at once.
    pub(crate) fn missing(&mut self, index: u64, most: u64, advice: Advice) -> u64 {
        let found = self.streams.iter().position(|stream| stream.end == index && stream.window > 0);
        let inside = || self.streams.iter().position(|stream| stream.has(index));
        if let Some(number) = found {
            self.streams[..=number].rotate_right(1);
            return self.streams[0].ask_for_more(most);
        }
        let (number, window) = match inside() {
            // It was asked for, and did not come or did not stay.
            Some(number) => (number, self.streams[number].window / 2),
            None => {
                let latest = self.streams[0].window.div_ceil(2);
                self.streams[0].window = latest;
                (STREAMS - 1, latest)
            }
        };
        self.streams[..=number].rotate_right(1);
        self.streams[0].windows = 1;
        self.streams[0].window = if advice == Advice::Sequential { most } else { window.clamp(1, most) };
        self.streams[0].ask(index, index + self.streams[0].window)
    }

    /// The last turn asks for whole blocks of so many pages. Answers where it ends.
    fn round_up(&mut self, block: u64) -> u64 {
        let turn = &mut self.streams[0];
        let end = turn.end.next_multiple_of(block);
        turn.asked += end - turn.end;
        turn.end = end;
        end
    }

    /// A page is wanted that is being loaded. Where that began before anybody wanted it, the reader was faster.
    pub(super) fn waited(&mut self, index: u64) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ahead && stream.has(index)) {
            stream.windows = (stream.windows * 2).clamp(2, WINDOWS);
        }
    }

    /// A page that is there is used. Answers the pages that should be asked for now.
    fn used(&mut self, index: u64, most: u64) -> Option<Range<u64>> {
        let is_time =
            |stream: &Stream| stream.has(index) && (stream.ahead || stream.end - index <= stream.asked / 2);
        let number = self.streams.iter().position(is_time)?;
        self.streams[..=number].rotate_right(1);
        let start = self.streams[0].end;
        let end = self.streams[0].ask_for_more(most);
        self.streams[0].ahead = true;
        Some(start..end)
    }
}

impl VmObject {
    /// The largest window, and the most pages that are stored together: 1 where nothing is read ahead.
    pub(crate) fn pages_at_once(&self) -> u64 {
        if !self.memory.reads_ahead() {
            return 1;
        }
        self.pager.as_deref().map_or(1, |pager| (pager.pages_at_once() as u64).clamp(1, WINDOW))
    }

    /// The pages of a block, which are loaded together.
    fn block_pages(&self) -> u64 {
        self.pager.as_deref().map_or(1, |pager| (pager.block_pages() as u64).max(1))
    }

    /// The pages that are to be loaded with one that has to be, and that one. With no lock held.
    pub(super) fn plan(&self, index: u64, advice: Advice) -> Range<u64> {
        match self.pages_at_once() {
            1 => index..index + 1,
            _ if advice == Advice::Random => index..index + 1,
            most => {
                let block = self.block_pages();
                let mut inner = self.inner.lock();
                inner.streams.missing(index, most, advice);
                index / block * block..inner.streams.round_up(block).min(self.pages)
            }
        }
    }

    /// Looks whether a page that was just used makes it time to read on, and begins that. With no lock held.
    pub(crate) fn read_on(self: &Arc<Self>, index: u64, advice: Advice) {
        let most = self.pages_at_once();
        if most == 1 || advice == Advice::Random {
            return;
        }
        if let Some(base) = &self.base {
            return base.read_on(index, advice);
        }
        let block = self.block_pages();
        let next = {
            let mut inner = self.inner.lock();
            let next = inner.streams.used(index, most);
            next.map(|pages| pages.start..inner.streams.round_up(block))
        };
        if let Some(pages) = next {
            self.load_with(None, pages);
        }
    }

    /// Hands a load to the pager with those of `pages` that are missing. The page that is wanted is one of them, if there is
    /// one. With no lock held.
    pub(super) fn load_with(self: &Arc<Self>, mut wanted: Option<PageRequest>, pages: Range<u64>) {
        let Some(pager) = &self.pager else { return };
        let most = (pager.pages_at_once() as u64).clamp(1, WINDOW * WINDOWS);
        let most = most.next_multiple_of(self.block_pages());
        let pager = Asked::new(self, &**pager);
        // A turn may reach beyond the object, or begin there.
        let mut rest = pages.start..pages.end.min(self.pages).max(pages.start);
        while !rest.is_empty() {
            let room = most.min(rest.end - rest.start) as usize;
            let Ok(mut run) = Requests::try_with_room(room) else { break };
            self.begin_ahead(&mut run, &mut wanted, &mut rest);
            if run.len() > 0 {
                pager.load_range(run);
            }
        }
        // There was no room for those before it.
        if let Some(wanted) = wanted {
            pager.load(wanted);
        }
    }

    /// Begins to load pages that follow each other, and takes what was looked at off the front of `rest`: all of it
    /// where there is no memory.
    fn begin_ahead(
        self: &Arc<Self>,
        run: &mut Requests<PageRequest>,
        wanted: &mut Option<PageRequest>,
        rest: &mut Range<u64>,
    ) {
        let has_room = || self.memory.hardware().heap_has_room() && self.memory.has_frames_ahead();
        let mut begun = 0;
        let mut inner = self.inner.lock();
        let Inner { pages, above, ahead, closers, .. } = &mut *inner;
        // Whether another may be begun at all, and whether this run ends before the next.
        let (mut may_begin, mut ends) = (*closers == 0, false);
        while may_begin && !ends && !rest.is_empty() {
            let enter = |index, entry: PageEntry| {
                ends = !run.has_room();
                if ends {
                    return Enter::Enough;
                }
                if let Some(wanted) = wanted.take_if(|wanted| wanted.index().as_u64() == index) {
                    run.push(wanted);
                    return Enter::Leave;
                }
                // One whose last load failed is left to those who want it, and one that an overlay stores, to those who wait.
                let is_missing = entry.state() == PageState::Absent && entry.dropped_at().is_none();
                if !is_missing || above.iter().any(|store| store.page().as_u64() == index) {
                    ends = run.len() > 0;
                    return if ends { Enter::Enough } else { Enter::Leave };
                }
                if *ahead >= UNDER_WAY {
                    return Enter::Enough;
                }
                *ahead += 1;
                begun += 1;
                run.push(PageRequest::ahead(self.memory, index, Arc::downgrade(self)));
                Enter::Set(PageEvent::Ahead, PageEntry::new(PageState::Loading))
            };
            let entered = has_room() && pages.enter_some(rest, enter).is_ok();
            may_begin = entered && *ahead < UNDER_WAY;
        }
        if !may_begin {
            rest.start = rest.end;
        }
        let counters = &self.memory.counters;
        counters.loads_started.fetch_add(begun, Ordering::Relaxed);
        counters.loads_ahead.fetch_add(begun, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads pages in order from one on, as faults do that map nothing along. Answers the lengths of the turns.
    fn turns(streams: &mut Streams, start: u64, count: usize) -> std::vec::Vec<u64> {
        let mut at = start;
        let turn = |_| {
            let end = streams.missing(at, WINDOW, Advice::Normal);
            let length = end - at;
            at = end;
            length
        };
        (0..count).map(turn).collect()
    }

    #[test]
    fn the_window_doubles_up_to_32_pages_and_its_ends_are_aligned() {
        let mut streams = Streams::default();
        assert_eq!(turns(&mut streams, 0, 9), [1, 2, 4, 8, 17, 32, 32, 32, 32]);
        let mut end = 160;
        for _ in 0..3 {
            end = streams.missing(end, WINDOW, Advice::Normal);
        }
        assert_eq!(end % ALIGN, 0);
    }

    #[test]
    fn a_miss_halves_the_window() {
        let mut streams = Streams::default();
        turns(&mut streams, 0, 7);
        for expected in [16, 8, 4, 2, 1, 1] {
            let at = expected * 100_000;
            let end = streams.missing(at, WINDOW, Advice::Normal);
            assert_eq!(end - at, expected, "at {at}");
            assert_eq!(streams.streams[0].end, end);
            streams.streams[0].end = u64::MAX / 2;
        }
    }

    #[test]
    fn what_was_read_ahead_and_is_missing_halves_the_window() {
        let mut streams = Streams::default();
        turns(&mut streams, 0, 6);
        assert_eq!(streams.missing(40, WINDOW, Advice::Normal), 56);
        assert_eq!(streams.missing(50, WINDOW, Advice::Normal), 58);
    }

    #[test]
    fn eight_readers_have_a_window_each() {
        let mut streams = Streams::default();
        let mut at: [u64; 8] = core::array::from_fn(|reader| reader as u64 * 10_000);
        for _ in 0..6 {
            at.iter_mut().for_each(|at| *at = streams.missing(*at, WINDOW, Advice::Normal));
        }
        at.iter_mut().for_each(|at| assert_eq!(streams.missing(*at, WINDOW, Advice::Normal) - *at, 32));
    }

    #[test]
    fn the_next_turn_begins_when_the_second_half_is_in_use() {
        let mut streams = Streams::default();
        turns(&mut streams, 0, 6);
        let end = streams.streams[0].end;
        assert_eq!(end, 64);
        assert_eq!(streams.used(end - 17, WINDOW), None);
        assert_eq!(streams.used(end - 16, WINDOW), Some(64..96));
        assert_eq!(streams.used(end - 15, WINDOW), None, "it has begun");
        assert_eq!(streams.used(end - 60, WINDOW), None);
        assert_eq!(streams.used(end, WINDOW), Some(96..128), "the first of a turn that nobody waited for");
    }

    #[test]
    fn turns_of_a_reader_that_is_faster_than_the_device_double_up_to_four_windows() {
        let mut streams = Streams::default();
        turns(&mut streams, 0, 6);
        assert_eq!(streams.used(48, WINDOW), Some(64..96));
        let mut start = 64;
        for pages in [64, 128, 128, 128] {
            streams.waited(start);
            streams.waited(10_000);
            let next = streams.used(start, WINDOW).expect("it is time for more");
            start = next.start;
            assert_eq!(next.end - start, pages);
        }
        assert_eq!(streams.used(start - 1, WINDOW), None, "the turn before it has made this one begin");
        let next = streams.used(start + 127, WINDOW).expect("the last page of a turn that nobody waited for");
        assert_eq!(next.end - next.start, 128, "it stays as it is");
        // A page that did not stay is a miss, and all is lost.
        assert_eq!(streams.missing(next.start + 1, WINDOW, Advice::Normal), next.start + 17);
        assert_eq!(streams.missing(next.start + 17, WINDOW, Advice::Normal), next.start + 49);
    }

    #[test]
    fn a_pager_says_how_many_pages_it_takes_at_once() {
        let mut streams = Streams::default();
        let mut at = 0;
        for expected in [1, 2, 3, 3] {
            let end = streams.missing(at, 3, Advice::Normal);
            assert_eq!(end - at, expected);
            at = end;
        }
    }
}
