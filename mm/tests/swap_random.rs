//! Random forks, writes and unmaps in a few frames over swap, whose disk answers in any order and fails at times: each
//! space sees its own words, and nothing is left at the end.

mod common;

use std::sync::Arc;

use common::swap::{BASE, Swapping};
use common::tasks::Handle;
use common::{PAGE, address, range};
use mm::{AddressSpace, Denial};
use proptest::prelude::*;

const PAGES: u64 = 24;
const SPACES: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Read { space: usize, page: u64 },
    Write { space: usize, page: u64, value: u64 },
    Fork { space: usize },
    End { space: usize },
    Unmap { space: usize, page: u64 },
    SwapOut { target: usize },
    Hold,
    Release { number: usize },
    ReleaseAll,
    FailReads { times: usize },
    FailWrites { times: usize },
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let (space, page) = (0..SPACES, 0..PAGES);
    prop_oneof![
        10 => (space.clone(), page.clone()).prop_map(|(space, page)| Step::Read { space, page }),
        12 => (space.clone(), page.clone(), 0..3u64)
            .prop_map(|(space, page, value)| Step::Write { space, page, value }),
        3 => space.clone().prop_map(|space| Step::Fork { space }),
        2 => space.clone().prop_map(|space| Step::End { space }),
        1 => (space, page).prop_map(|(space, page)| Step::Unmap { space, page }),
        5 => (1..40usize).prop_map(|target| Step::SwapOut { target }),
        3 => Just(Step::Hold),
        6 => (0..4usize).prop_map(|number| Step::Release { number }),
        2 => Just(Step::ReleaseAll),
        1 => (0..3usize).prop_map(|times| Step::FailReads { times }),
        1 => (0..3usize).prop_map(|times| Step::FailWrites { times }),
        3 => Just(Step::Forget),
    ]
}

/// A write or a fork whose disk has not answered yet changes what may be seen, so each is waited for before the next step
/// of its space; reads of other spaces go on meanwhile.
struct Space {
    space: Arc<AddressSpace>,
    /// `None`: nothing is mapped.
    words: Vec<Option<u64>>,
}

struct Play {
    scene: Swapping,
    spaces: Vec<Space>,
    reads: Vec<(Handle<Result<u64, Denial>>, u64)>,
}

impl Play {
    /// Reads that are under way see what was there when they began: nobody writes to those spaces before they end.
    fn finish_reads(&mut self) {
        self.scene.store.release_all();
        self.scene.tasks.run();
        for (read, word) in self.reads.drain(..) {
            match read.take().expect("the disk has answered") {
                Ok(value) => assert_eq!(value, word),
                Err(why) => assert!(matches!(why, Denial::Io { .. }), "{why}"),
            }
        }
    }

    fn play(&mut self, step: Step) {
        let count = self.spaces.len();
        match step {
            Step::Read { space, page } => {
                let Space { space, words } = &self.spaces[space % count];
                if let Some(word) = words[page as usize] {
                    let read = self.scene.begin_read(&space.clone(), page);
                    self.reads.push((read, word));
                }
            }
            Step::Write { space, page, value } => {
                self.finish_reads();
                let Space { space, words } = &mut self.spaces[space % count];
                if words[page as usize].is_some() {
                    match self.scene.write(&space.clone(), page, value) {
                        Ok(()) => words[page as usize] = Some(value),
                        Err(why) => assert!(matches!(why, Denial::Io { .. }), "{why}"),
                    }
                }
            }
            Step::Fork { space } if count < SPACES => {
                let Space { space, words } = &self.spaces[space % count];
                let (space, words) = (self.scene.fork(&space.clone()), words.clone());
                self.spaces.push(Space { space, words });
            }
            Step::End { space } if count > 1 => drop(self.spaces.swap_remove(space % count)),
            Step::Unmap { space, page } => {
                self.finish_reads();
                let Space { space, words } = &mut self.spaces[space % count];
                let pages = 2.min(PAGES - page);
                let unmapped = space.clone();
                self.scene.tasks.spawn(async move {
                    unmapped.unmap(range(address(BASE + page * PAGE), pages)).await.unwrap();
                });
                self.scene.tasks.run();
                words[page as usize..(page + pages) as usize].fill(None);
            }
            Step::SwapOut { target } => drop(self.scene.begin_swap_out(target)),
            Step::Hold => self.scene.store.hold(),
            Step::Release { number } => {
                self.scene.store.release(number);
                self.scene.tasks.run();
            }
            Step::ReleaseAll => self.finish_reads(),
            Step::FailReads { times } => self.scene.store.fail_reads(times),
            Step::FailWrites { times } => self.scene.store.fail_writes(times),
            Step::Forget => self.scene.machine.forget_translations(),
            Step::Fork { .. } | Step::End { .. } => {}
        }
    }

    fn end(mut self) {
        self.scene.store.fail_reads(0);
        self.scene.store.fail_writes(0);
        self.finish_reads();
        for Space { space, words } in &self.spaces {
            for (page, word) in (0..).zip(words) {
                if let Some(word) = *word {
                    assert_eq!(self.scene.read(space, page), Ok(word), "at the end, page {page}");
                }
            }
        }
        self.spaces.clear();
        self.scene.assert_nothing_is_left();
    }
}

proptest! {
    #![proptest_config(common::seed::config(200))]

    #[test]
    fn each_space_sees_its_own_words_through_swap(
        steps in prop::collection::vec(step(), 1..200),
        frames in 40..90usize,
    ) {
        let scene = Swapping::new(frames, 300);
        let space = Space { space: scene.space(PAGES), words: vec![Some(0); PAGES as usize] };
        let mut play = Play { scene, spaces: vec![space], reads: Vec::new() };
        steps.into_iter().for_each(|step| play.play(step));
        play.end();
    }
}
