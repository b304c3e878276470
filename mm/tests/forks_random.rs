//! Random forks against a flat model: each space has its own copy of every word, and nothing is left at the end.

mod common;

use std::ops::Range;
use std::sync::Arc;

use common::shown::RW;
use common::tasks::block_on;
use common::{Machine, PAGE, address, content, page, range};
use mm::{AddressSpace, Denial, MapError, Placement, VmObject};
use proptest::prelude::*;

const BASE: u64 = 0x40_0000;
/// Pages of anonymous memory, and of private memory over a file, in a row.
const PAGES: usize = 5;
const ALL: usize = 2 * PAGES;
const SPACES: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Read { space: usize, at: usize },
    Write { space: usize, at: usize, value: u64 },
    CopyOut { space: usize, at: usize, value: u64 },
    Fork { space: usize },
    End { space: usize },
    Unmap { space: usize, at: usize, pages: usize },
    Remap { space: usize, at: usize, old: usize, pages: usize, to: usize },
    WriteFile { at: usize, value: u64 },
    Reclaim,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let (space, at, value) = (0..SPACES, 0..ALL, 1..1_000_000u64);
    prop_oneof![
        6 => (space.clone(), at.clone()).prop_map(|(space, at)| Step::Read { space, at }),
        8 => (space.clone(), at.clone(), value.clone())
            .prop_map(|(space, at, value)| Step::Write { space, at, value }),
        2 => (space.clone(), at.clone(), value.clone())
            .prop_map(|(space, at, value)| Step::CopyOut { space, at, value }),
        4 => space.clone().prop_map(|space| Step::Fork { space }),
        2 => space.clone().prop_map(|space| Step::End { space }),
        1 => (space.clone(), at.clone(), 1..4usize)
            .prop_map(|(space, at, pages)| Step::Unmap { space, at, pages }),
        2 => (space, at.clone(), 1..4usize, 1..5usize, at.clone())
            .prop_map(|(space, at, old, pages, to)| Step::Remap { space, at, old, pages, to }),
        1 => (at, value).prop_map(|(at, value)| Step::WriteFile { at, value }),
        1 => Just(Step::Reclaim),
        1 => Just(Step::Forget),
    ]
}

/// What a space should show: nothing, or memory over zeros or over a page of the file, with what was written to it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Word {
    Nothing,
    Zeros(Option<u64>),
    File(usize, Option<u64>),
}

impl Word {
    fn value(self, in_file: &[u64; PAGES]) -> Option<u64> {
        match self {
            Word::Nothing => None,
            Word::Zeros(own) => Some(own.unwrap_or(0)),
            Word::File(page, own) => Some(own.unwrap_or(in_file[page])),
        }
    }

    fn written(&mut self, value: u64) {
        let (Word::Zeros(own) | Word::File(_, own)) = self else { panic!("nothing is mapped") };
        *own = Some(value);
    }
}

struct Space {
    space: Arc<AddressSpace>,
    words: [Word; ALL],
}

fn at(index: usize) -> u64 {
    BASE + index as u64 * PAGE
}

fn first(machine: &'static Machine, file: &Arc<VmObject>) -> Space {
    let space = machine.user_space();
    let placed = |index| Placement::Fixed(address(at(index)));
    space.map_anonymous(PAGES as u64, RW, placed(0)).unwrap();
    space.map_private(file, page(0), PAGES as u64, RW, placed(PAGES)).unwrap();
    let words =
        std::array::from_fn(
            |index| if index < PAGES { Word::Zeros(None) } else { Word::File(index - PAGES, None) },
        );
    Space { space, words }
}

/// Moves what a space shows to another place, longer or shorter; or says why not.
fn remap(words: &mut [Word; ALL], from: Range<usize>, to: Range<usize>) -> Result<(), MapError> {
    let mut moved = words[from.clone()].to_vec();
    if moved.contains(&Word::Nothing) {
        return Err(MapError::NotMapped);
    }
    let new = if from.start == to.start { from.end.min(to.end)..to.end } else { to.clone() };
    if words[new].iter().any(|word| *word != Word::Nothing) {
        return Err(MapError::Overlap);
    }
    while moved.len() < to.len() {
        moved.push(match moved[moved.len() - 1] {
            Word::File(page, _) if page + 1 < PAGES => Word::File(page + 1, None),
            Word::File(..) => return Err(MapError::BeyondObject),
            _ => Word::Zeros(None),
        });
    }
    words[from].fill(Word::Nothing);
    words[to.clone()].copy_from_slice(&moved[..to.len()]);
    Ok(())
}

async fn play(machine: &'static Machine, steps: Vec<Step>) {
    let file = VmObject::new(machine.memory, machine.pager(), PAGES as u64);
    let mut in_file: [u64; PAGES] = std::array::from_fn(|index| content(index as u64));
    let mut spaces = vec![first(machine, &file)];
    for step in steps {
        let count = spaces.len();
        match step {
            Step::Read { space, at: index } => {
                let Space { space, words } = &spaces[space % count];
                let expected = words[index].value(&in_file).ok_or(Denial::NoMapping);
                assert_eq!(machine.read(space, at(index)).await, expected);
            }
            Step::Write { space, at: index, value } | Step::CopyOut { space, at: index, value } => {
                let Space { space, words } = &mut spaces[space % count];
                let written = if matches!(step, Step::Write { .. }) {
                    machine.write(space, at(index), value).await
                } else {
                    space.copy_out(at(index), &value.to_le_bytes()).await
                };
                if words[index] == Word::Nothing {
                    assert_eq!(written, Err(Denial::NoMapping));
                } else {
                    assert_eq!(written, Ok(()));
                    words[index].written(value);
                }
            }
            Step::Fork { space } if count < SPACES => {
                let Space { space, words } = &spaces[space % count];
                let (space, words) = (space.fork(machine.empty_table()).await.unwrap(), *words);
                spaces.push(Space { space, words });
            }
            Step::End { space } if count > 1 => drop(spaces.swap_remove(space % count)),
            Step::Unmap { space, at: index, pages } => {
                let Space { space, words } = &mut spaces[space % count];
                let end = (index + pages).min(ALL);
                space.unmap(range(address(at(index)), (end - index) as u64)).await.unwrap();
                words[index..end].fill(Word::Nothing);
            }
            Step::Remap { space, at: index, old, pages, to } => {
                let Space { space, words } = &mut spaces[space % count];
                let (old, pages) = (old.min(ALL - index), pages.min(ALL - to));
                let from = range(address(at(index)), old as u64);
                let told = space.remap(from, pages as u64, Placement::Fixed(address(at(to)))).await;
                assert_eq!(told.map(drop), remap(words, index..index + old, to..to + pages));
            }
            Step::WriteFile { at, value } => {
                file.write((at % PAGES) as u64 * PAGE, &value.to_le_bytes()).await.unwrap();
                in_file[at % PAGES] = value;
            }
            Step::Reclaim => drop(mm::reclaim(machine.memory, usize::MAX).await),
            Step::Forget => machine.forget_translations(),
            Step::Fork { .. } | Step::End { .. } => {}
        }
    }
    for Space { space, words } in &spaces {
        for (index, word) in words.iter().enumerate() {
            if let Some(value) = word.value(&in_file) {
                assert_eq!(machine.read(space, at(index)).await, Ok(value), "at the end, page {index}");
            }
        }
    }
    drop(spaces);
    assert_eq!(file.stats().mappings, 0, "the file's list is not what is mapped");
}

proptest! {
    #![proptest_config(common::seed::config(300))]

    #[test]
    fn each_space_sees_its_own_words(steps in prop::collection::vec(step(), 1..150)) {
        let machine = Machine::new(400);
        block_on(async move {
            // The page of zeros stays.
            let warm = machine.user_space();
            warm.map_anonymous(1, RW, Placement::Fixed(address(BASE))).unwrap();
            machine.read(&warm, BASE).await.unwrap();
            drop(warm);
            machine.memory.settle().await;
            let free = machine.free();
            play(machine, steps).await;
            machine.memory.settle().await;
            assert_eq!(machine.free(), free, "frames are left over");
        });
    }
}
