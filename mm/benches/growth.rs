//! How the cost of a look-up and of a fault grows with the number of mappings and with the size of the object: the
//! instructions of an operation, counted by callgrind. The program fails where one grows faster than the logarithm.

#[path = "../tests/common/mod.rs"]
mod common;
mod counted;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{Machine, PAGE, address, page};
use mm::{Access, AddressSpace, FaultOutcome, Placement, Protection, VmObject};

/// Operations of the smaller run.
const OPERATIONS: usize = 5_000;
/// Most pages that the operations go round.
const TOUCHED: usize = 1_000;
/// What the figures of one size and another may differ by for other reasons, in instructions.
const SLACK: f64 = 20.0;
const BASE: u64 = 0x4000_0000;

/// Name, sizes, and what is done so many times with that size.
type Workload = (&'static str, &'static [usize], fn(usize, usize));

const WORKLOADS: [Workload; 3] = [
    ("look-up of an address where nothing is mapped, by mappings", &[10, 1_000, 100_000], |mappings, n| {
        let space = space_of(mappings);
        each(mappings, n, |number| {
            let fault = fault(at(number) + PAGE);
            assert!(matches!(now(space.resolve(fault)), FaultOutcome::Denied(_)));
        });
    }),
    ("fault on a page that is in memory, by mappings", &[10, 1_000, 100_000], |mappings, n| {
        let space = space_of(mappings);
        each(mappings, mappings.min(TOUCHED), |number| touch(&space, at(number)));
        each(mappings, n, |number| touch(&space, at(number)));
    }),
    (
        "fault on a page that is in memory, by pages of the object",
        &[10, 1_000, 100_000, 10_000_000],
        |pages, n| {
            let machine = machine();
            let space = machine.user_space();
            let object = VmObject::zero(machine.memory, pages as u64);
            let rights = Protection::READ_WRITE.for_user();
            let placed = Placement::Fixed(address(BASE));
            space.map(&object, page(0), pages as u64, rights, placed).expect("there is room");
            each(pages, pages.min(TOUCHED), |number| touch(&space, BASE + number * PAGE));
            each(pages, n, |number| touch(&space, BASE + number * PAGE));
        },
    ),
];

/// A machine that checks nothing: what is counted is the VM core's own.
fn machine() -> &'static Machine {
    let machine = Machine::new(8 * TOUCHED);
    machine.memory.record_as(0);
    machine
}

fn main() {
    if let Some(numbers) = counted::child() {
        let (_, sizes, run) = WORKLOADS[numbers[0]];
        return run(sizes[numbers[1]], numbers[2]);
    }
    println!("| operation | size | instructions | at most |\n| --- | ---: | ---: | ---: |");
    let mut grows_faster = false;
    for (workload, (what, sizes, _)) in WORKLOADS.iter().enumerate() {
        let mut first = 0.0;
        for (number, &size) in sizes.iter().enumerate() {
            let cost = counted::of_one(&[workload, number], OPERATIONS);
            if number == 0 {
                first = cost;
            }
            let most = first * (size as f64).ln() / (sizes[0] as f64).ln() + SLACK;
            println!("| {what} | {size} | {cost:.0} | {most:.0} |");
            grows_faster |= cost > most;
        }
    }
    if grows_faster {
        eprintln!("a figure grows faster than the logarithm of the size");
        std::process::exit(1);
    }
}

/// Where a mapping is: between two pages that are not mapped.
fn at(number: u64) -> u64 {
    BASE + 2 * number * PAGE
}

/// A space with so many mappings of a page each, of one object.
fn space_of(mappings: usize) -> Arc<AddressSpace> {
    let machine = machine();
    let space = machine.user_space();
    let object = VmObject::zero(machine.memory, mappings as u64);
    for number in 0..mappings as u64 {
        let placed = Placement::Fixed(address(at(number)));
        let rights = Protection::READ_WRITE.for_user();
        space.map(&object, page(number), 1, rights, placed).expect("there is room");
    }
    space
}

fn fault(address: u64) -> mm::Fault {
    mm::Fault { address, access: Access::Write, user: true }
}

fn touch(space: &AddressSpace, address: u64) {
    assert_eq!(now(space.resolve(fault(address))), FaultOutcome::Resolved);
}

/// Goes round at most `TOUCHED` of `size` numbers, all over their range and in no order.
fn each(size: usize, times: usize, mut f: impl FnMut(u64)) {
    let used = size.min(TOUCHED);
    for time in 0..times {
        // A prime that divides none of the sizes.
        let number = time * 7_919 % used;
        f((number * (size / used)) as u64);
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("there is nothing to wait for"),
    }
}
