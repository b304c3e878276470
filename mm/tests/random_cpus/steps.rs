//! What the programs are made of. Each step is done by one CPU.

use mm::Access;
use proptest::prelude::*;

use crate::model::{PAGES, ROOM, SHARED, WORDS};

/// CPUs beside the one that conducts.
pub(crate) const CPUS: usize = 3;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    Zeros,
    Private { first: usize },
    File { first: usize },
    Shared,
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Access { at: usize, word: usize, access: Access },
    CopyIn { at: usize },
    CopyOut { at: usize },
    Map { at: usize, pages: usize, shown: Shown },
    Unmap { at: usize, pages: usize },
    Protect { at: usize, pages: usize, rights: u8 },
    Remap { at: usize, old: usize, pages: usize, to: usize },
    Fork,
    Store { first: usize, pages: usize },
    Mark { first: usize, pages: usize },
    StoreAndMark { first: usize, pages: usize },
    Flush,
    Discard { first: usize, pages: usize },
    Release { first: usize, pages: usize },
    ReleaseOther,
    Reclaim { pages: usize },
    SwapOut { pages: usize },
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A thread begins something in the middle of the CPU's poll.
    Begin {
        space: usize,
        call: Call,
    },
    /// The CPU polls what has been woken.
    Poll {
        which: usize,
    },
    Pass,
    Forget,
    Kill {
        which: usize,
    },
    EndSpace {
        space: usize,
    },
    Hold,
    Load {
        page: usize,
    },
    Stored {
        page: usize,
    },
    FailLoad {
        page: usize,
    },
    FailStore {
        page: usize,
    },
    HoldSwap,
    ReleaseSwap,
    /// What is free is somebody else's for a moment.
    Use,
}

fn call() -> impl Strategy<Value = Call> {
    // Most meet at a page of each kind.
    let hot = prop::sample::select((0..ROOM).step_by(PAGES).collect::<Vec<_>>());
    let one = prop_oneof![2 => hot, 1 => 0..ROOM];
    let (at, pages, first) = (0..ROOM, 1..5usize, prop_oneof![2 => Just(0), 1 => 0..PAGES]);
    let (file, some) = ((first.clone(), 1..=PAGES), (at.clone(), pages.clone()));
    let access = prop_oneof![2 => Just(Access::Read), 3 => Just(Access::Write)];
    let shown = prop_oneof![
        3 => Just(Shown::Zeros),
        2 => first.clone().prop_map(|first| Shown::Private { first }),
        3 => first.prop_map(|first| Shown::File { first }),
        1 => Just(Shown::Shared),
    ];
    prop_oneof![
        60 => (one.clone(), 0..WORDS, access).prop_map(|(at, word, access)| Call::Access { at, word, access }),
        2 => one.clone().prop_map(|at| Call::CopyIn { at }),
        3 => one.prop_map(|at| Call::CopyOut { at }),
        5 => (at.clone(), pages.clone(), shown).prop_map(|(at, pages, shown)| Call::Map { at, pages, shown }),
        4 => some.clone().prop_map(|(at, pages)| Call::Unmap { at, pages }),
        4 => (some, prop_oneof![1 => Just(0u8), 3 => Just(1), 4 => Just(2)])
            .prop_map(|((at, pages), rights)| Call::Protect { at, pages, rights }),
        4 => (at.clone(), pages.clone(), pages.clone(), at)
            .prop_map(|(at, old, pages, to)| Call::Remap { at, old, pages, to }),
        5 => Just(Call::Fork),
        3 => file.clone().prop_map(|(first, pages)| Call::Store { first, pages }),
        1 => file.clone().prop_map(|(first, pages)| Call::Mark { first, pages }),
        3 => file.clone().prop_map(|(first, pages)| Call::StoreAndMark { first, pages }),
        1 => Just(Call::Flush),
        2 => file.clone().prop_map(|(first, pages)| Call::Discard { first, pages }),
        2 => file.prop_map(|(first, pages)| Call::Release { first, pages }),
        1 => Just(Call::ReleaseOther),
        4 => (1..8usize).prop_map(|pages| Call::Reclaim { pages }),
        4 => (1..8usize).prop_map(|pages| Call::SwapOut { pages }),
    ]
}

/// A step, and the CPU that does it.
pub(crate) fn step() -> impl Strategy<Value = (usize, Step)> {
    let (which, page) = (0..64usize, 0..PAGES);
    let step = prop_oneof![
        60 => (0..4usize, call()).prop_map(|(space, call)| Step::Begin { space, call }),
        40 => which.clone().prop_map(|which| Step::Poll { which }),
        10 => Just(Step::Pass),
        1 => Just(Step::Forget),
        1 => which.prop_map(|which| Step::Kill { which }),
        1 => (0..4usize).prop_map(|space| Step::EndSpace { space }),
        1 => Just(Step::Hold),
        5 => page.clone().prop_map(|page| Step::Load { page }),
        5 => page.clone().prop_map(|page| Step::Stored { page }),
        1 => page.clone().prop_map(|page| Step::FailLoad { page }),
        1 => page.prop_map(|page| Step::FailStore { page }),
        1 => Just(Step::HoldSwap),
        2 => Just(Step::ReleaseSwap),
        3 => Just(Step::Use),
    ];
    (0..CPUS, step)
}

/// How many pages there are from the first on.
pub(crate) fn shown_pages(shown: Shown) -> usize {
    match shown {
        Shown::Zeros => ROOM,
        Shown::Private { first } | Shown::File { first } => PAGES - first,
        Shown::Shared => SHARED,
    }
}
