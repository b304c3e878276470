//! Requests of threads that are ready go to the device together.

use core::time::Duration;

use executor::{Builder, Class, host};

use super::*;

std::thread_local! {
    /// The test's own, for its futures, which others might poll.
    static CLOCK: host::Clock = host::simulate_time();
}

/// Spawns the queue task, and threads that each ask for one sector, for as long.
fn run(bench: &Bench, sectors: impl Iterator<Item = u64>, long: Duration) {
    CLOCK.with(|clock| clock.advance(Duration::ZERO));
    let serving = executor::spawn(serve(bench.desk.clone(), bench.device.clone()));
    host::run_until_idle();
    for sector in sectors {
        let permit = bench.try_reserve(1).expect("there is room");
        let client = Client { sector, device: bench.device.clone(), told: bench.told.clone() };
        let segments = [sector_at(sector)][..].into();
        let request = BlockRequest { op: Operation::Read, sector, segments, client: Box::new(client) };
        let desk = bench.desk.clone();
        let thread = async move {
            CLOCK.with(|clock| clock.advance(long));
            desk.submit(request, permit);
        };
        drop(Builder::new().class(Class::Thread).spawn(thread));
    }
    host::run_until_idle();
    drop(serving);
}

#[test]
fn threads_that_are_ready_have_their_requests_told_to_the_device_at_once() {
    let bench = Bench::new();
    run(&bench, 0..20, Duration::from_micros(5));
    assert_eq!(bench.device.state().offered.len(), 20);
    assert_eq!(bench.device.state().notifications, 1);
}

#[test]
fn a_request_waits_for_one_long_turn_at_most_and_then_none_for_a_while() {
    let bench = Bench::new();
    run(&bench, 0..20, Duration::from_millis(1));
    assert_eq!(bench.device.state().offered.len(), 20);
    // The first waits for the second; the others wait for nobody.
    assert_eq!(bench.device.state().notifications, 19);
}

#[test]
fn a_thread_that_asks_for_nothing_holds_a_request_up_for_few_turns() {
    let bench = Bench::new();
    CLOCK.with(|clock| clock.advance(Duration::ZERO));
    let serving = executor::spawn(serve(bench.desk.clone(), bench.device.clone()));
    host::run_until_idle();
    let permit = bench.try_reserve(1).expect("there is room");
    let client = Client { sector: 7, device: bench.device.clone(), told: bench.told.clone() };
    let segments = [sector_at(7)][..].into();
    let request = BlockRequest { op: Operation::Read, sector: 7, segments, client: Box::new(client) };
    bench.desk.submit(request, permit);
    let device = bench.device.clone();
    let busy = Builder::new().class(Class::Thread).spawn(async move {
        let mut turns = 0;
        while device.state().offered.is_empty() {
            turns += 1;
            executor::yield_now().await;
        }
        turns
    });
    let turns = host::block_on(busy).expect("it ends");
    assert!((1..=5).contains(&turns), "{turns} turns");
    drop(serving);
}
