//! Random programs of the frame lists against sets of frames.

use alloc::vec;
use alloc::vec::Vec;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Where the first record is about no multiple of anything.
const BASE: u64 = 37;

fn lists(usable: &[(u64, u64)]) -> FrameLists {
    let mut lists = FrameLists::new(vec![Record::HOLE; 400].leak(), BASE);
    for &(first, frames) in usable {
        lists.add(first, frames);
    }
    lists
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    /// Frees a part of an allocation, from its start.
    Free(usize, u64),
    List(usize),
    Unlist(usize),
    Oldest(Age, usize),
    /// Ages for pages that are listed, in the order in which they are looked at, from one of them on.
    Ages(usize, Vec<Age>),
    /// Frees pages that are listed, in that order, but for each that is skipped.
    FreeListed(usize, Vec<bool>),
}

fn age() -> impl Strategy<Value = Age> {
    prop_oneof![Just(Age::New), Just(Age::Old), Just(Age::Young)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6usize).prop_map(Step::Allocate),
        3 => (0..20usize, 1..40u64).prop_map(|(which, frames)| Step::Free(which, frames)),
        2 => (0..20usize).prop_map(Step::List),
        1 => (0..20usize).prop_map(Step::Unlist),
        2 => (age(), 0..=4usize).prop_map(|(age, most)| Step::Oldest(age, most)),
        2 => (0..20usize, prop::collection::vec(age(), 1..5)).prop_map(|(from, ages)| Step::Ages(from, ages)),
        1 => (0..20usize, prop::collection::vec(any::<bool>(), 1..5))
            .prop_map(|(from, which)| Step::FreeListed(from, which)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn no_frame_is_given_twice_and_all_come_back(program in prop::collection::vec(step(), 1..120)) {
        let usable = [(40, 100), (200, 64), (300, 137)];
        let mut lists = lists(&usable);
        let mut free: BTreeSet<u64> =
            usable.iter().flat_map(|&(first, frames)| first..first + frames).collect();
        let mut owned: Vec<(u64, u64)> = Vec::new();
        // Frames and their ages, in the order in which they are looked at.
        let mut clean: Vec<(u64, Age)> = Vec::new();
        for step in program {
            match step {
                Step::Allocate(order) => match lists.allocate(order) {
                    Some(first) => {
                        prop_assert_eq!(first % (1 << order), 0);
                        prop_assert!((first..first + (1 << order)).all(|frame| free.remove(&frame)));
                        owned.push((first, 1 << order));
                    }
                    // Then there is no such block, or buddies were not merged.
                    None => {
                        let whole = |&&first: &&u64| {
                            first % (1 << order) == 0
                                && (first..first + (1 << order)).all(|frame| free.contains(&frame))
                        };
                        prop_assert_eq!(free.iter().find(whole), None);
                    }
                },
                Step::Free(which, frames) if !owned.is_empty() => {
                    let which = which % owned.len();
                    let (first, all) = owned[which];
                    let frames = frames.min(all);
                    lists.free(first, frames);
                    free.extend(first..first + frames);
                    clean.retain(|(frame, _)| !(first..first + frames).contains(frame));
                    owned[which] = (first + frames, all - frames);
                    owned.retain(|&(_, frames)| frames > 0);
                }
                Step::List(which) if !owned.is_empty() => {
                    let frame = owned[which % owned.len()].0;
                    if clean.iter().all(|&(other, _)| other != frame) {
                        lists.list(PageList::Clean, ListedPage { frame, object: 5, page: frame * 3 });
                        clean.push((frame, Age::New));
                    }
                }
                Step::Unlist(which) if !owned.is_empty() => {
                    let frame = owned[which % owned.len()].0;
                    lists.unlist(frame);
                    clean.retain(|&(other, _)| other != frame);
                }
                Step::Ages(from, ages) if !clean.is_empty() => {
                    let from = from % clean.len();
                    let looked_at: Vec<_> = clean[from..].iter().zip(&ages).map(|(page, age)| (page.0, *age)).collect();
                    let candidate = |&(frame, age)| {
                        let page = ListedPage { frame, ..ListedPage::default() };
                        Candidate { page, outcome: Outcome::Aged(age), ..Candidate::default() }
                    };
                    lists.set_ages(&looked_at.iter().map(candidate).collect::<Vec<_>>());
                    clean.drain(from..from + looked_at.len());
                    clean.extend(looked_at);
                }
                Step::FreeListed(from, which) if !clean.is_empty() => {
                    let some = clean[from % clean.len()..].iter().zip(which).filter(|(_, goes)| *goes);
                    let frames: Vec<u64> = some.map(|(page, _)| page.0).collect();
                    lists.free_each(&frames);
                    free.extend(&frames);
                    clean.retain(|(frame, _)| !frames.contains(frame));
                    // What is listed is the first of what is left of its block.
                    for (first, all) in owned.iter_mut().filter(|(first, _)| frames.contains(first)) {
                        (*first, *all) = (*first + 1, *all - 1);
                    }
                    owned.retain(|&(_, frames)| frames > 0);
                }
                Step::Oldest(age, most) => {
                    let ages = [age, Age::New, Age::Old, Age::Young];
                    let of = ages.into_iter().find(|&age| clean.iter().any(|&(_, other)| age == other));
                    let seen: Vec<_> =
                        clean.iter().copied().filter(|&(_, age)| Some(age) == of).take(most).collect();
                    let mut places = [Candidate::default(); 4];
                    let found = lists.oldest(PageList::Clean, age, &mut places[..most]);
                    prop_assert_eq!(found, seen.len());
                    for (place, &(frame, age)) in places.iter().zip(&seen) {
                        let page = ListedPage { frame, object: 5, page: frame * 3 };
                        prop_assert_eq!((place.page, place.age), (page, age));
                        clean.retain(|&(other, _)| other != frame);
                        clean.push((frame, age));
                    }
                }
                _ => {}
            }
            let count = |age| clean.iter().filter(|(_, other)| *other == age).count();
            let ages = Ages { new: count(Age::New), old: count(Age::Old), young: count(Age::Young) };
            prop_assert_eq!(lists.ages(PageList::Clean), ages);
            prop_assert_eq!((lists.free_frames, lists.listed[PageList::Clean as usize]), (free.len(), clean.len()));
        }
    }
}

/// A page for each of the first frames that are free.
fn pages<const COUNT: usize>(lists: &mut FrameLists) -> [ListedPage; COUNT] {
    core::array::from_fn(|page| {
        let frame = lists.allocate(0).expect("there are frames");
        ListedPage { frame, object: 1, page: page as u64 }
    })
}

fn oldest(lists: &mut FrameLists, on: PageList) -> Option<u64> {
    let mut place = [Candidate::default()];
    (lists.oldest(on, Age::New, &mut place) > 0).then_some(place[0].page.page)
}

#[test]
fn a_dirty_page_that_is_made_the_first_is_the_first_whatever_age_a_policy_names() {
    let mut lists = lists(&[(40, 8)]);
    let [one, other] = pages(&mut lists);
    lists.list(PageList::Dirty, one);
    lists.make_first(one.frame, |_| Age::Old);
    lists.list(PageList::Dirty, other);
    assert_eq!(oldest(&mut lists, PageList::Dirty), Some(one.page));
}

#[test]
fn a_page_that_was_stored_is_dirty_and_on_one_list() {
    let mut lists = lists(&[(40, 8)]);
    let [one, other] = pages(&mut lists);
    lists.list(PageList::Dirty, one);
    lists.list(PageList::Dirty, other);
    lists.list(PageList::Stored, one);
    assert_eq!((lists.dirty(), oldest(&mut lists, PageList::Stored)), (2, Some(one.page)));
    assert_eq!([(); 2].map(|()| oldest(&mut lists, PageList::Dirty)), [Some(other.page); 2]);
    lists.list(PageList::Clean, one);
    assert_eq!((lists.dirty(), oldest(&mut lists, PageList::Stored)), (1, None));
}
