//! What the programs are made of.

use proptest::prelude::*;

use crate::world::{FILE, OVER, OWN, SHARED};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Read { page: u64 },
    Write { page: u64, word: u64 },
    ReadShared { page: u64 },
    WriteShared { page: u64, word: u64 },
    ReadFile { page: u64 },
    WriteFile { page: u64, word: u64 },
    Flush,
    Fork,
    Unmap { page: u64 },
    Sleep { millis: u64 },
    End,
}

#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    HoldSwap,
    FailSwapReads { times: usize },
    FailSwapWrites { times: usize },
    HoldFile,
    FailLoads { times: usize },
    FailStores { times: usize },
    FailFlushes { times: usize },
    Heap { allocations: usize },
    TakeFrames { frames: usize },
    Release,
    Cure,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let (own, shared, file) = (0..OWN + OVER, 0..SHARED, 0..FILE);
    prop_oneof![
        10 => own.clone().prop_map(|page| Step::Read { page }),
        16 => (own.clone(), 0..1000u64).prop_map(|(page, word)| Step::Write { page, word }),
        6 => shared.clone().prop_map(|page| Step::ReadShared { page }),
        10 => (shared, 0..1000u64).prop_map(|(page, word)| Step::WriteShared { page, word }),
        6 => file.clone().prop_map(|page| Step::ReadFile { page }),
        10 => (file, 0..1000u64).prop_map(|(page, word)| Step::WriteFile { page, word }),
        1 => Just(Step::Flush),
        2 => Just(Step::Fork),
        1 => own.prop_map(|page| Step::Unmap { page }),
        2 => (0..50u64).prop_map(|millis| Step::Sleep { millis }),
        1 => Just(Step::End),
    ]
}

pub(crate) fn trouble() -> impl Strategy<Value = (u64, Trouble)> {
    let times = || prop_oneof![4 => 1..5usize, 1 => Just(usize::MAX)];
    let kind = prop_oneof![
        2 => Just(Trouble::HoldSwap),
        2 => times().prop_map(|times| Trouble::FailSwapReads { times }),
        2 => times().prop_map(|times| Trouble::FailSwapWrites { times }),
        2 => Just(Trouble::HoldFile),
        1 => times().prop_map(|times| Trouble::FailLoads { times }),
        2 => times().prop_map(|times| Trouble::FailStores { times }),
        1 => (1..3usize).prop_map(|times| Trouble::FailFlushes { times }),
        2 => (0..8usize).prop_map(|allocations| Trouble::Heap { allocations }),
        3 => (1..80usize).prop_map(|frames| Trouble::TakeFrames { frames }),
        3 => Just(Trouble::Release),
        2 => Just(Trouble::Cure),
    ];
    let millis = prop_oneof![6 => 0..40u64, 2 => 40..1000u64, 1 => 1000..20_000u64];
    (millis, kind)
}
