//! What the programs are made of. Each step is done by one CPU.

use std::ops::Range;

use mm::Access;
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::model::{GIVEN, PAGES, ROOM, SHARED, WORDS};

/// CPUs beside the one that conducts.
pub(crate) const CPUS: usize = 3;
/// Where given frames are shown at first.
const GIVEN_AT: usize = 4 * PAGES;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    Zeros,
    Private { first: usize },
    File { first: usize },
    Shared,
    Given,
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
    ReplaceGiven { at: usize },
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
    /// A thread goes on writing to a page that the CPU remembers, whatever tables say by now.
    Rewrite {
        which: usize,
        word: usize,
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
    Release,
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

/// What most of a program is about.
#[derive(Clone, Copy)]
enum About {
    All,
    /// Private memory, forks and swap.
    Own,
    /// The file: its stores, marks, and what gives its pages back.
    File,
}

impl About {
    fn room(self) -> Range<usize> {
        match self {
            About::All => 0..ROOM,
            About::Own => 0..2 * PAGES,
            About::File => 2 * PAGES..3 * PAGES,
        }
    }
}

/// A page of a space. Most meet at one of each kind.
fn one(about: About) -> impl Strategy<Value = usize> + Clone {
    let hot = prop::sample::select(about.room().step_by(PAGES).collect::<Vec<_>>());
    prop_oneof![2 => hot, 1 => about.room()]
}

fn first() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![2 => Just(0), 1 => 0..PAGES]
}

/// A load or store by a thread.
fn access(at: impl Strategy<Value = usize>) -> impl Strategy<Value = Call> {
    let access = prop_oneof![2 => Just(Access::Read), 3 => Just(Access::Write)];
    (at, 0..WORDS, access).prop_map(|(at, word, access)| Call::Access { at, word, access })
}

/// Calls that change what a space shows from a page on.
fn with_space(about: About, at: impl Strategy<Value = usize> + Clone) -> impl Strategy<Value = Call> {
    let pages = 1..5usize;
    let some = (at.clone(), pages.clone());
    let (zeros, file) = match about {
        About::All => (3, 3),
        About::Own => (9, 1),
        About::File => (1, 9),
    };
    let shown = prop_oneof![
        zeros => Just(Shown::Zeros),
        2 => first().prop_map(|first| Shown::Private { first }),
        file => first().prop_map(|first| Shown::File { first }),
        1 => Just(Shown::Shared),
        1 => Just(Shown::Given),
    ];
    prop_oneof![
        8 => (at.clone(), pages.clone(), shown).prop_map(|(at, pages, shown)| Call::Map { at, pages, shown }),
        3 => some.clone().prop_map(|(at, pages)| Call::Unmap { at, pages }),
        3 => (some, prop_oneof![1 => Just(0u8), 3 => Just(1), 6 => Just(2)])
            .prop_map(|((at, pages), rights)| Call::Protect { at, pages, rights }),
        3 => (at, pages.clone(), pages, one(about))
            .prop_map(|(at, old, pages, to)| Call::Remap { at, old, pages, to }),
    ]
}

fn with_files() -> impl Strategy<Value = Call> {
    let file = (first(), 1..=PAGES);
    prop_oneof![
        3 => file.clone().prop_map(|(first, pages)| Call::Store { first, pages }),
        1 => file.clone().prop_map(|(first, pages)| Call::Mark { first, pages }),
        6 => file.clone().prop_map(|(first, pages)| Call::StoreAndMark { first, pages }),
        1 => Just(Call::Flush),
        2 => file.clone().prop_map(|(first, pages)| Call::Discard { first, pages }),
        2 => file.prop_map(|(first, pages)| Call::Release { first, pages }),
        1 => Just(Call::ReleaseOther),
        4 => (1..8usize).prop_map(|pages| Call::Reclaim { pages }),
    ]
}

fn with_own_memory() -> impl Strategy<Value = Call> {
    prop_oneof![
        5 => Just(Call::Fork),
        4 => (1..8usize).prop_map(|pages| Call::SwapOut { pages }),
    ]
}

fn replace_given() -> impl Strategy<Value = Call> {
    prop_oneof![4 => GIVEN_AT..GIVEN_AT + GIVEN, 1 => 0..ROOM].prop_map(|at| Call::ReplaceGiven { at })
}

/// Calls that wait for all CPUs, most of them; those that are about a place of a space, from there on.
fn change(about: About, at: impl Strategy<Value = usize> + Clone + 'static) -> impl Strategy<Value = Call> {
    let (space, files, own, given) = match about {
        About::All => (4, 4, 2, 1),
        About::Own => (1, 0, 1, 0),
        About::File => (1, 2, 0, 0),
    };
    let kinds = [
        (space, with_space(about, at).boxed()),
        (files, with_files().boxed()),
        (own, with_own_memory().boxed()),
        (given, replace_given().boxed()),
    ];
    Union::new_weighted(kinds.into_iter().filter(|(weight, _)| *weight > 0).collect())
}

fn call(about: About) -> impl Strategy<Value = Call> {
    prop_oneof![
        60 => access(one(about)),
        2 => one(about).prop_map(|at| Call::CopyIn { at }),
        3 => one(about).prop_map(|at| Call::CopyOut { at }),
        45 => change(about, one(about)),
    ]
}

/// A CPU uses a page, and remembers it. Others begin something there, and the first goes on with what it remembers, before
/// they have waited for it.
fn meeting(about: About) -> impl Strategy<Value = Vec<(usize, Step)>> {
    let meeting = move |at| {
        let cpus = Just([0, 1, 2]).prop_shuffle();
        let write = (0..WORDS).prop_map(move |word| Call::Access { at, word, access: Access::Write });
        let used = prop_oneof![write, access(Just(at))];
        let first = prop_oneof![10 => change(about, Just(at)).prop_map(Some), 1 => Just(None)];
        let second = prop_oneof![1 => access(Just(at)), 1 => change(about, Just(at))];
        (cpus, 0..4usize, (used, first, second), 0..64usize, 0..WORDS)
    };
    one(about).prop_flat_map(meeting).prop_map(|([a, b, c], space, (used, first, second), which, word)| {
        let begin = |call| Step::Begin { space, call };
        let first = first.map_or(Step::EndSpace { space }, begin);
        vec![(a, begin(used)), (b, first), (c, begin(second)), (a, Step::Rewrite { which, word })]
    })
}

/// A step, and the CPU that does it.
fn step(about: About) -> impl Strategy<Value = (usize, Step)> {
    let (which, page) = (0..64usize, 0..PAGES);
    let step = prop_oneof![
        60 => (0..4usize, call(about)).prop_map(|(space, call)| Step::Begin { space, call }),
        40 => which.clone().prop_map(|which| Step::Poll { which }),
        20 => (which.clone(), 0..WORDS).prop_map(|(which, word)| Step::Rewrite { which, word }),
        10 => Just(Step::Pass),
        1 => Just(Step::Forget),
        1 => which.prop_map(|which| Step::Kill { which }),
        6 => (0..4usize).prop_map(|space| Step::EndSpace { space }),
        1 => Just(Step::Hold),
        3 => Just(Step::Release),
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

pub(crate) fn program() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let about = |about| {
        let steps = prop_oneof![2 => step(about).prop_map(|step| vec![step]), 1 => meeting(about)];
        prop::collection::vec(steps, 1..100).prop_map(|steps| steps.concat())
    };
    prop_oneof![1 => about(About::All), 1 => about(About::Own), 2 => about(About::File)]
}

/// How many pages there are from the first on.
pub(crate) fn shown_pages(shown: Shown) -> usize {
    match shown {
        Shown::Zeros => ROOM,
        Shown::Private { first } | Shown::File { first } => PAGES - first,
        Shown::Shared => SHARED,
        Shown::Given => GIVEN,
    }
}
