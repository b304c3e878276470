//! Who gets how much of the queue, and when.

use super::*;

#[test]
fn eighty_five_single_requests_are_in_flight_together_and_no_more() {
    let mut bench = Bench::new();
    let places = bench.desk.inbox.lock().waiting.capacity();
    for sector in 0..85 {
        bench.read(sector);
    }
    assert_eq!(bench.desk.inbox.lock().waiting.capacity(), places, "the inbox never grows under its lock");
    assert_eq!(bench.desk.room.most_requests(), 85);
    bench.turn();
    assert_eq!(bench.in_flight(), 85);
    let room = bench.desk.room.clone();
    let mut waiting = pin!(room.reserve(1));
    assert!(ready(waiting.as_mut()).is_none());
    bench.device.complete(40);
    bench.interrupt();
    let permit = ready(waiting.as_mut()).expect("a completion makes room");
    bench.submit_with(permit, Operation::Read, 90, &[sector_at(90)]);
    bench.turn();
    assert_eq!(bench.desk.counters.max_in_flight.load(Ordering::Relaxed), 85);
    assert_eq!(bench.desk.counters.requests.load(Ordering::Relaxed), 86);
}

#[test]
fn a_large_request_is_not_overtaken_by_small_ones() {
    let bench = Bench::new();
    let mut held: Vec<_> = (0..84).map(|_| bench.try_reserve(1).unwrap()).collect();
    // Four descriptors are free; the large one needs ten.
    let mut large = pin!(bench.desk.room.reserve(8));
    let mut small = pin!(bench.desk.room.reserve(1));
    assert!(ready(large.as_mut()).is_none());
    assert!(ready(small.as_mut()).is_none(), "there would be room, but it is not its turn");
    drop(held.pop());
    assert!(ready(large.as_mut()).is_none() && ready(small.as_mut()).is_none());
    drop(held.pop());
    let large = ready(large.as_mut()).expect("ten are free");
    assert_eq!(large.segments(), 8);
    assert!(ready(small.as_mut()).is_none());
    drop(large);
    assert!(ready(small.as_mut()).is_some());
}

#[test]
fn room_that_is_given_up_at_any_point_comes_back() {
    let bench = Bench::new();
    let held: Vec<_> = (0..85).map(|_| bench.try_reserve(1).unwrap()).collect();
    let mut abandoned = Box::pin(bench.desk.room.reserve(1));
    let mut next = pin!(bench.desk.room.reserve(1));
    assert!(ready(abandoned.as_mut()).is_none() && ready(next.as_mut()).is_none());
    drop(held);
    // Granted, never looked at.
    drop(abandoned);
    drop(ready(next.as_mut()).expect("everything is free"));
    let all = (0..100).map_while(|_| bench.try_reserve(1)).collect::<Vec<_>>();
    assert_eq!(all.len(), 85);
}

#[test]
fn a_request_with_more_segments_than_reserved_is_refused() {
    let mut bench = Bench::new();
    let permit = bench.try_reserve(2).unwrap();
    bench.submit_with(permit, Operation::Read, 1, &[sector_at(1), sector_at(2), sector_at(3)]);
    bench.turn();
    assert_eq!(bench.told(), [(1, Err(BlockError::Malformed))]);
    assert!(bench.device.state().offered.is_empty());
}

#[test]
fn ten_thousand_requests_leave_no_trace() {
    let mut bench = Bench::new();
    let mut random = 12345u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let (mut submitted, mut told, mut rounds) = (0, 0, 0);
    while submitted < 10_000 || bench.in_flight() > 0 {
        rounds += 1;
        assert!(rounds < 10_000, "it does not come to an end");
        let burst = if submitted < 10_000 { next(20) } else { 0 };
        for _ in 0..burst {
            // Far more sectors than room, so that one is never in flight twice.
            let sector = submitted % SECTORS;
            let Some(permit) = bench.try_reserve(1) else { break };
            bench.submit_with(permit, Operation::Read, sector, &[sector_at(sector)]);
            submitted += 1;
        }
        bench.turn();
        for _ in 0..next(20) {
            let chosen = {
                let state = bench.device.state();
                let choice = next(state.has.len().max(1) as u64) as usize;
                state.has.get(choice).map(|request| request.2)
            };
            if let Some(sector) = chosen {
                bench.device.complete_with(sector, (next(10) == 0).into(), None);
            }
        }
        bench.interrupt();
        told += bench.told().len() as u64;
    }
    assert_eq!(told, submitted);
    let all = (0..100).map_while(|_| bench.try_reserve(1)).collect::<Vec<_>>();
    assert_eq!(all.len(), 85);
}
