//! What a theft takes, and in which order it stands then.

use std::boxed::Box;
use std::vec::Vec;

use super::fifo::MOST_STOLEN;
use super::{Fifo, HAND};
use crate::atomic::Ordering;
use crate::cpu::CpuLocal;
use crate::task::Header;
use crate::{Builder, Class, Order, TaskRef, arch};

/// A CPU that nobody finds in the list.
fn new_cpu(id: u32) -> &'static CpuLocal {
    Box::leak(Box::new(CpuLocal::new(id)))
}

/// So many tasks that are in no queue. They are never polled.
fn tasks(count: usize, builder: Builder) -> Vec<*mut Header> {
    let take = |_| {
        drop(builder.spawn(async {}));
        let cpu = arch::local();
        let task = cpu.woken_tasks.take();
        if task.is_null() { cpu.woken_threads.take() } else { task }
    };
    (0..count).map(take).collect()
}

fn fifo(tasks: &[*mut Header]) -> Fifo {
    let mut fifo = Fifo::new();
    // SAFETY: the tasks live for ever, and are in no queue.
    tasks.iter().for_each(|&task| unsafe { fifo.push_back(task) });
    fifo
}

fn queue(cpu: &CpuLocal, tasks: &[*mut Header], threads: &[*mut Header]) {
    // SAFETY: this thread runs no loop, so it is the run loop of all its CPUs.
    unsafe {
        cpu.ready.with(|queues| {
            queues.tasks.append(fifo(tasks));
            queues.threads.append(fifo(threads));
        });
    }
}

/// Takes everything out: the tasks, and the threads.
fn drain(cpu: &CpuLocal) -> (Vec<*mut Header>, Vec<*mut Header>) {
    // SAFETY: as in `queue`.
    unsafe {
        cpu.ready.with(|queues| {
            let tasks = core::iter::from_fn(|| queues.tasks.pop()).collect();
            (tasks, core::iter::from_fn(|| queues.threads.pop()).collect())
        })
    }
}

fn steal(thief: &'static CpuLocal, victim: &'static CpuLocal, most: usize) -> usize {
    // SAFETY: as in `queue`.
    unsafe { thief.ready.steal(thief, victim, most) }
}

#[test]
fn a_thief_without_work_takes_the_half_that_was_ready_for_longest() {
    let (thief, victim) = (new_cpu(0), new_cpu(1));
    let tasks = tasks(5, Builder::new());
    queue(victim, &tasks, &[]);
    assert_eq!(steal(thief, victim, usize::MAX), 3);
    assert_eq!(drain(thief).0, tasks[..3]);
    assert_eq!(drain(victim).0, tasks[3..]);
}

#[test]
fn nobody_comes_later_to_its_turn_by_being_moved() {
    let (thief, victim) = (new_cpu(0), new_cpu(1));
    let (own, tasks) = (tasks(3, Builder::new()), tasks(9, Builder::new()));
    queue(thief, &own, &[]);
    queue(victim, &tasks, &[]);
    assert_eq!(steal(thief, victim, 3), 3);
    assert_eq!(drain(thief).0, [&own[..], &tasks[3..6]].concat());
    assert_eq!(drain(victim).0, [&tasks[..3], &tasks[6..]].concat());
}

#[test]
fn what_lies_in_the_hand_stands_before_the_queue() {
    let (thief, victim) = (new_cpu(0), new_cpu(1));
    let (own, tasks) = (tasks(3, Builder::new()), tasks(6, Builder::new()));
    queue(thief, &own, &[]);
    let mut dealt = fifo(&tasks[..2]);
    dealt.fill(&victim.ready.hand[..2]);
    queue(victim, &tasks[2..], &[]);
    assert_eq!(steal(thief, victim, 1), 1);
    assert_eq!(drain(thief).0, [&own[..], &tasks[3..4]].concat());
}

#[test]
fn the_most_that_is_taken_counts_for_tasks_and_threads_together() {
    let (thief, victim) = (new_cpu(0), new_cpu(1));
    let tasks_and_threads = || (tasks(4, Builder::new()), tasks(6, Builder::new().class(Class::Thread)));
    let (own, there) = (tasks_and_threads(), tasks_and_threads());
    queue(victim, &there.0, &there.1);
    assert_eq!(steal(thief, victim, 3), 3);
    assert_eq!(drain(thief), (there.0[..2].to_vec(), there.1[..1].to_vec()));
    // Threads have turns of their own, and so are compared with threads.
    drain(victim);
    queue(thief, &own.0, &own.1[..1]);
    queue(victim, &[], &there.1);
    assert_eq!(steal(thief, victim, 2), 2);
    assert_eq!(drain(thief).1, [&own.1[..1], &there.1[1..3]].concat());
}

#[test]
fn one_theft_moves_a_bounded_number_and_no_pinned_ones() {
    let (thief, victim) = (new_cpu(0), new_cpu(1));
    let (free, pinned) =
        (tasks(3 * MOST_STOLEN, Builder::new()), tasks(10, Builder::new().cpu(arch::local().id())));
    queue(victim, &[&pinned[..], &free].concat(), &[]);
    assert_eq!(steal(thief, victim, usize::MAX), MOST_STOLEN);
    assert_eq!(drain(thief).0, free[..MOST_STOLEN]);
    assert_eq!(drain(victim).0, [&pinned[..], &free[MOST_STOLEN..]].concat());
}

#[test]
fn what_is_taken_out_of_a_hand_keeps_its_order() {
    let (thief, victim) = (new_cpu(0), new_cpu(1));
    let tasks = tasks(HAND, Builder::new());
    fifo(&tasks).fill(&victim.ready.hand);
    assert_eq!(steal(thief, victim, usize::MAX), HAND.div_ceil(2));
    assert_eq!(drain(thief).0, tasks[HAND / 2..]);
    let left = victim.ready.hand.iter().map(|slot| slot.load(Ordering::Relaxed));
    assert_eq!(left.filter(|task| !task.is_null()).collect::<Vec<_>>(), tasks[..HAND / 2]);
}

/// Tasks with a higher nice factor first.
struct Nicest;

impl Order for Nicest {
    fn rank(&self, task: &TaskRef) -> u64 {
        u64::from(u8::MAX - task.nice())
    }
}

#[test]
fn an_order_takes_tasks_out_of_any_place_and_counts_what_is_pinned() {
    let nice = |factor| tasks(1, Builder::new().nice(factor))[0];
    let pinned = tasks(1, Builder::new().nice(3).cpu(arch::local().id()))[0];
    let (first, second, third) = (nice(1), nice(2), nice(2));
    let mut queue = fifo(&[first, second, pinned, third]);
    assert_eq!(queue.movable(), 3);
    assert_eq!(queue.pop_lowest(&Nicest), Some(pinned), "out of the middle");
    assert_eq!((queue.len(), queue.movable()), (3, 3));
    assert_eq!(queue.pop_lowest(&Nicest), Some(second), "of equals the first");
    assert_eq!(queue.pop_lowest(&Nicest), Some(third), "the last");
    queue.append(fifo(&[second]));
    assert_eq!(queue.pop_lowest(&Nicest), Some(second), "behind a new last one");
    assert_eq!(queue.pop_lowest(&Nicest), Some(first), "the only one");
    assert_eq!((queue.pop_lowest(&Nicest), queue.len()), (None, 0));
}
