//! Frames that CPUs keep at hand: each is handed out once, counted right, and found when it is needed.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::Machine;
use mm::{Frame, FramePool, FrameRun};
use proptest::prelude::*;

type Work = Box<dyn FnOnce() + Send>;

/// Threads that are CPUs, each of which does one thing when it is told to.
struct Cpus(Vec<mpsc::Sender<Work>>);

impl Cpus {
    fn new(count: usize) -> Self {
        let start = |_| {
            let (sender, receiver) = mpsc::channel::<Work>();
            std::thread::spawn(move || receiver.into_iter().for_each(|work| work()));
            sender
        };
        Self((0..count).map(start).collect())
    }

    fn on<T: Send + 'static>(&self, cpu: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.0[cpu % self.0.len()].send(Box::new(move || drop(sender.send(work())))).unwrap();
        receiver.recv().unwrap()
    }
}

fn take_all(frames: &'static FramePool) -> Vec<Frame> {
    std::iter::from_fn(|| frames.try_alloc()).collect()
}

#[test]
fn a_frame_in_another_cpus_cache_is_free() {
    let frames = Machine::new(700).memory.frames();
    let total = frames.stats().free;
    let cpus = Cpus::new(3);
    for cpu in 0..3 {
        cpus.on(cpu, move || drop((0..10).map(|_| frames.try_alloc()).collect::<Vec<_>>()));
    }
    let stats = frames.stats();
    assert_eq!(stats.free, total);
    assert!(stats.cached >= 30, "{} lie in caches", stats.cached);
    assert_eq!(take_all(frames).len(), total);
}

#[test]
fn frames_come_out_of_a_cache_in_the_order_of_their_addresses() {
    let frames = Machine::new(4000).memory.frames();
    let taken: Vec<_> = (0..256).map(|_| frames.try_alloc().expect("there are frames")).collect();
    let follow = taken.windows(2).filter(|two| two[1].number() == two[0].number() + 1).count();
    assert!(follow >= 256 - 2 * 256 / 16, "{follow} follow the one before");
}

#[test]
fn a_block_is_put_together_from_what_cpus_keep() {
    let frames = Machine::new(1700).memory.frames();
    let cpus = Cpus::new(2);
    for cpu in 0..2 {
        cpus.on(cpu, move || {
            // Each CPU keeps frames of the two large pages that there are.
            let (large, others): (Vec<_>, Vec<_>) =
                take_all(frames).into_iter().partition(|frame| (512..1536).contains(&frame.number()));
            assert_eq!(large.len(), 1024);
            drop(others);
            let (even, odd): (Vec<_>, Vec<_>) = large.into_iter().partition(|frame| frame.number() % 2 == 0);
            drop(even);
            drop(odd);
        });
    }
    assert!(frames.stats().cached > 0);
    let pages = [frames.try_alloc_large(), frames.try_alloc_large()].map(Option::unwrap);
    assert!(pages.iter().all(FrameRun::is_large));
}

#[test]
fn caches_are_empty_below_the_high_mark() {
    let frames = Machine::new(700).memory.frames();
    let cpus = Cpus::new(2);
    cpus.on(0, move || drop((0..30).map(|_| frames.try_alloc()).collect::<Vec<_>>()));
    while frames.prepare_zeroed() {}
    let stats = frames.stats();
    assert!(stats.cached > 0 && stats.zeroed > 0);
    let total = stats.free;
    let mut taken = Vec::new();
    while frames.stats().free >= stats.high {
        taken.push(frames.try_alloc().unwrap());
    }
    for _ in 0..stats.high - 1 {
        let now = frames.stats();
        assert_eq!((now.cached, now.zeroed), (0, 0));
        assert_eq!((now.free, now.least_free), (total - taken.len(), now.free));
        taken.push(cpus.on(taken.len(), move || frames.try_alloc()).unwrap());
    }
    assert!(frames.try_alloc().is_none());
}

#[test]
fn prepared_frames_are_zero_counted_as_free_and_taken_first() {
    let frames = Machine::new(700).memory.frames();
    let total = frames.stats().free;
    let prepared = std::iter::repeat_with(|| frames.prepare_zeroed()).take_while(|&more| more).count();
    let stats = frames.stats();
    assert!((1..100).contains(&prepared), "it ends");
    assert_eq!((stats.zeroed, stats.free), (prepared, total));
    let taken: Vec<_> = std::iter::from_fn(|| frames.try_alloc_zeroed()).take(prepared + 3).collect();
    assert!(taken.iter().all(|frame| frame.as_bytes().iter().all(|&byte| byte == 0)));
    assert_eq!(frames.stats().zeroed, 0);
    drop(taken);
    assert!(frames.prepare_zeroed());
    assert_eq!(take_all(frames).len(), total, "and they are anybody's when there are no others");
}

#[test]
fn nothing_is_prepared_when_frames_are_short() {
    let frames = Machine::new(400).memory.frames();
    let stats = frames.stats();
    let mut taken = Vec::new();
    while frames.stats().free > stats.high {
        taken.push(frames.try_alloc().unwrap());
    }
    assert!(!frames.prepare_zeroed());
    assert_eq!(frames.stats().zeroed, 0);
}

/// A step of a random program, and the CPU that does it.
#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    /// Gives back some of the frames and runs that are out.
    Give(Vec<prop::sample::Index>),
    Run(usize, usize),
    Zeroed,
    Prepare,
    /// A run is cut in two, or into frames.
    Cut(prop::sample::Index, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60usize).prop_map(Step::Take),
        1 => (100..400usize).prop_map(Step::Take),
        6 => prop::collection::vec(any::<prop::sample::Index>(), 1..80).prop_map(Step::Give),
        3 => (1..80usize, 0..6u32).prop_map(|(frames, align)| Step::Run(frames, 1 << align)),
        2 => Just(Step::Zeroed),
        2 => Just(Step::Prepare),
        2 => (any::<prop::sample::Index>(), 0..90usize).prop_map(|(which, at)| Step::Cut(which, at)),
    ]
}

fn numbers(run: &FrameRun) -> std::ops::Range<u64> {
    let first = run.address().as_u64() / common::PAGE;
    first..first + run.frames() as u64
}

proptest! {
    #![proptest_config(common::seed::config(100))]

    #[test]
    fn each_frame_is_handed_out_once_whichever_cpus_take_and_give(
        program in prop::collection::vec((0..4usize, step()), 1..80),
    ) {
        let frames = Machine::new(700).memory.frames();
        let cpus = Cpus::new(4);
        let mut free: BTreeSet<u64> = take_all(frames).iter().map(Frame::number).collect();
        let total = free.len();
        let has_block = |free: &BTreeSet<u64>, size: u64| {
            free.iter().any(|&first| first % size == 0 && (first..first + size).all(|frame| free.contains(&frame)))
        };
        let largest = (0..10).rev().find(|&order| has_block(&free, 1 << order)).unwrap();
        let mut owned: Vec<FrameRun> = Vec::new();
        let mut out: BTreeSet<u64> = BTreeSet::new();
        let owned_numbers = || frames.owned().map(|frame| frame.as_u64() / common::PAGE);
        let tables: BTreeSet<u64> = owned_numbers().collect();
        for (cpu, step) in program {
            match step {
                Step::Take(count) => {
                    let taken: Vec<Frame> = cpus.on(cpu, move || (0..count).map_while(|_| frames.try_alloc()).collect());
                    prop_assert_eq!(taken.len(), count.min(free.len()));
                    for frame in taken {
                        prop_assert!(free.remove(&frame.number()) && out.insert(frame.number()));
                        owned.push(frame.into());
                    }
                }
                Step::Give(which) => {
                    let mut given = Vec::new();
                    for which in which {
                        if !owned.is_empty() {
                            given.push(owned.swap_remove(which.index(owned.len())));
                        }
                    }
                    for frame in given.iter().flat_map(numbers) {
                        prop_assert!(out.remove(&frame) && free.insert(frame));
                    }
                    // Single frames as such: the others are not for caches.
                    cpus.on(cpu, move || {
                        for run in given {
                            if run.frames() == 1 { drop(run.into_frames().next()) } else { drop(run) }
                        }
                    });
                }
                Step::Run(length, align) => match cpus.on(cpu, move || frames.try_alloc_contiguous(length, align)) {
                    Some(run) => {
                        prop_assert_eq!((run.frames(), numbers(&run).start % align as u64), (length, 0));
                        for frame in numbers(&run) {
                            prop_assert!(free.remove(&frame) && out.insert(frame));
                        }
                        owned.push(run);
                    }
                    None => prop_assert!(!has_block(&free, length.next_power_of_two().max(align) as u64)),
                },
                Step::Zeroed => match cpus.on(cpu, move || frames.try_alloc_zeroed()) {
                    Some(frame) => {
                        prop_assert!(frame.as_bytes().iter().all(|&byte| byte == 0));
                        prop_assert!(free.remove(&frame.number()) && out.insert(frame.number()));
                        owned.push(frame.into());
                    }
                    None => prop_assert!(free.is_empty()),
                },
                Step::Prepare => {
                    cpus.on(cpu, move || (0..5).map_while(|_| frames.prepare_zeroed().then_some(())).count());
                }
                Step::Cut(which, at) if !owned.is_empty() => {
                    let mut run = owned.swap_remove(which.index(owned.len()));
                    let before = numbers(&run);
                    match run.split_off(at) {
                        Some(rest) => {
                            prop_assert_eq!(numbers(&run), before.start..before.start + at as u64);
                            prop_assert_eq!(numbers(&rest), before.start + at as u64..before.end);
                            owned.extend([run, rest]);
                        }
                        None => owned.extend(run.into_frames().map(FrameRun::from)),
                    }
                }
                Step::Cut(..) => {}
            }
            let stats = frames.stats();
            prop_assert_eq!(stats.free, free.len());
            prop_assert!(stats.least_free <= stats.free);
            prop_assert!(stats.free >= stats.high || stats.cached + stats.zeroed == 0);
            if cfg!(debug_assertions) {
                prop_assert!(owned_numbers().filter(|frame| !tables.contains(frame)).eq(out.iter().copied()));
            }
        }
        cpus.on(3, move || drop(owned));
        prop_assert_eq!(frames.stats().free, total);
        let run = frames.try_alloc_contiguous(1 << largest, 1 << largest);
        prop_assert!(run.is_some(), "all memory is together again");
    }
}

/// One CPU takes all frames but one and waits for that, while another gives it back: before, in the middle, or after. Nobody
/// else gives anything back.
#[test]
fn who_takes_all_frames_gets_the_one_that_another_cpu_gives_back_meanwhile() {
    const ROUNDS: usize = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
    let frames = Machine::new(150).memory.frames();
    let total = frames.stats().free;
    let (sender, receiver) = mpsc::channel::<(Frame, usize)>();
    let (ended, end) = mpsc::channel();
    let taken_by_now = Arc::new(AtomicUsize::new(0));
    let seen = taken_by_now.clone();
    std::thread::spawn(move || {
        for (frame, when) in receiver {
            while seen.load(Ordering::Relaxed) < when {
                std::hint::spin_loop();
            }
            drop(frame);
        }
    });
    std::thread::spawn(move || {
        for round in 0..ROUNDS {
            assert!(frames.stats().cached > 0 || round == 0, "caches are open again");
            let last = frames.try_alloc().unwrap();
            // Half of the times near the end.
            let when = if round % 2 == 0 { total - 1 - round % 16 } else { round * 7 % total };
            taken_by_now.store(0, Ordering::Relaxed);
            sender.send((last, when)).unwrap();
            let mut taken = Vec::with_capacity(total);
            while taken.len() < total {
                if let Some(frame) = frames.try_alloc() {
                    taken.push(frame);
                } else {
                    // It is given back from here on at the latest.
                    taken_by_now.store(total, Ordering::Relaxed);
                    taken.push(executor::host::block_on(frames.alloc()).unwrap());
                }
                taken_by_now.store(taken.len(), Ordering::Relaxed);
            }
        }
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(300)).expect("every wait ends, and nobody panics");
    assert_eq!(frames.stats().free, total);
}

/// Threads take and give back single frames and runs, clear some ahead, and wait when there are none; every wait ends.
/// While a frame is somebody's, nobody else writes to it.
#[test]
fn a_storm_on_several_cpus_loses_no_frame_and_no_wait() {
    const THREADS: u64 = 6;
    const ROUNDS: usize = if cfg!(debug_assertions) { 10_000 } else { 50_000 };
    /// What a thread holds before it gives everything back: all together want more than there is, and their caches could
    /// hold all of it.
    const MOST: usize = 40;
    let frames = Machine::new(150).memory.frames();
    let total = frames.stats().free;
    assert!(total < MOST * THREADS as usize && total < 32 * THREADS as usize, "{total}");
    let (sender, receiver) = mpsc::channel();
    for thread in 1..=THREADS {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut random = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = move |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut held: HashMap<u64, FrameRun> = HashMap::new();
            let mut waits = 0;
            let mark = |run: &mut FrameRun| {
                let tag = numbers(run).start << 8 | thread;
                run.as_bytes_mut()[..8].copy_from_slice(&tag.to_le_bytes());
                tag
            };
            let give = |(tag, run): (u64, FrameRun)| {
                assert_eq!(run.as_bytes()[..8], tag.to_le_bytes(), "somebody else has written to it");
            };
            for _ in 0..ROUNDS {
                let mut run = match next(10) {
                    0..7 => frames.try_alloc().map(FrameRun::from),
                    7 => frames.try_alloc_contiguous(1 + next(20) as usize, 1),
                    8 => frames.try_alloc_zeroed().map(FrameRun::from),
                    _ => {
                        frames.prepare_zeroed();
                        continue;
                    }
                };
                if run.is_none() || held.len() >= MOST {
                    held.drain().for_each(give);
                    // Whoever waits holds nothing, so there is always somebody who gives something back.
                    if run.is_none() {
                        waits += 1;
                        run = executor::host::block_on(frames.alloc()).ok().map(FrameRun::from);
                    }
                }
                let mut run = run.expect("nobody is refused without a reclaimer");
                held.insert(mark(&mut run), run);
                if next(3) == 0 {
                    let given = held.keys().copied().next().expect("one was put in");
                    give((given, held.remove(&given).expect("it is there")));
                }
            }
            held.drain().for_each(give);
            sender.send(waits).unwrap();
        });
    }
    drop(sender);
    let mut waits = 0;
    for _ in 0..THREADS {
        waits += receiver.recv_timeout(Duration::from_secs(300)).expect("every wait ends, and nobody panics");
    }
    assert!(waits > 0, "nobody waited");
    let stats = frames.stats();
    assert_eq!((stats.free, stats.waiting), (total, 0));
    assert_eq!(take_all(frames).len(), total);
}
