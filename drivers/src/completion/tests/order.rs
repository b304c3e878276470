//! Requests that go well or fail one by one.

use super::*;

#[test]
fn requests_are_offered_in_the_order_of_submission_with_one_notification() {
    let mut bench = Bench::new();
    for sector in [5, 3, 9] {
        bench.read(sector);
    }
    bench.turn();
    assert_eq!(bench.device.state().offered, [5, 3, 9]);
    assert_eq!(bench.device.state().notifications, 1);
    bench.turn();
    assert_eq!(bench.device.state().notifications, 1, "nothing new, no notification");
}

#[test]
fn completions_out_of_order_reach_their_own_clients() {
    let mut bench = Bench::new();
    for sector in [1, 2, 3] {
        bench.read(sector);
    }
    bench.turn();
    assert_eq!((bench.in_flight(), bench.told()), (3, vec![]));
    bench.device.complete(3);
    bench.device.complete(1);
    bench.interrupt();
    assert_eq!(bench.told(), [(3, Ok(())), (1, Ok(()))]);
    assert_eq!(bench.in_flight(), 1);
    bench.device.complete(2);
    bench.interrupt();
    assert_eq!(bench.told(), [(2, Ok(()))]);
    assert_eq!(bench.in_flight(), 0);
}

#[test]
fn a_failing_request_harms_no_other() {
    let mut bench = Bench::new();
    for sector in 1..=6 {
        bench.read(sector);
    }
    bench.turn();
    bench.device.complete_with(1, 1, Some(1));
    bench.device.complete_with(2, 2, Some(1));
    // Done, it says, but not all of the memory was written, or more than there is.
    bench.device.complete_with(3, STATUS_OK, Some(512));
    bench.device.complete_with(4, STATUS_OK, Some(u64::from(u32::MAX)));
    // A status that nobody wrote.
    bench.device.complete_with(5, 0xff, Some(513));
    bench.device.complete(6);
    bench.interrupt();
    let expected = [
        (1, Err(BlockError::Io)),
        (2, Err(BlockError::Unsupported)),
        (3, Err(BlockError::Io)),
        (4, Err(BlockError::Io)),
        (5, Err(BlockError::Io)),
        (6, Ok(())),
    ];
    assert_eq!(bench.told(), expected);
    assert_eq!(bench.desk.counters.errors.load(Ordering::Relaxed), 5);
    assert!(!bench.device.state().stopped);
    // The next try of a failed sector is a request like any other.
    bench.read(1);
    bench.turn();
    bench.device.complete(1);
    bench.interrupt();
    assert_eq!(bench.told(), [(1, Ok(()))]);
}

#[test]
fn writes_and_flushes_answer_with_the_status_byte_alone() {
    let mut bench = Bench::new();
    bench.submit(Operation::Write, 7, &[sector_at(7)]);
    bench.submit(Operation::Flush, 8, &[]);
    bench.turn();
    bench.device.complete(7);
    bench.device.complete(8);
    bench.interrupt();
    assert_eq!(bench.told(), [(7, Ok(())), (8, Ok(()))]);
}

#[test]
fn what_is_asked_is_checked_before_the_device_sees_it() {
    let mut full = Bench::new();
    let mut read_only = Bench::with(Geometry { read_only: true, can_flush: false, ..GEOMETRY });
    let segment = |bytes| Segment::for_fake(0x1000, bytes);
    let cases: &[(Operation, u64, &[Segment], BlockError)] = &[
        (Operation::Read, SECTORS, &[segment(512)], BlockError::OutOfRange),
        (Operation::Read, SECTORS - 1, &[segment(1024)], BlockError::OutOfRange),
        (Operation::Read, SECTORS - 1, &[segment(512), segment(512)], BlockError::OutOfRange),
        (Operation::Read, u64::MAX, &[segment(512)], BlockError::OutOfRange),
        (Operation::Write, u64::MAX - 1, &[segment(4096)], BlockError::OutOfRange),
        (Operation::Read, 0, &[], BlockError::Malformed),
        (Operation::Read, 0, &[segment(0)], BlockError::Malformed),
        (Operation::Read, 0, &[segment(511)], BlockError::Malformed),
        (Operation::Read, 0, &[segment(512), segment(100)], BlockError::Malformed),
        (Operation::Write, 0, &[Segment::for_fake(u64::MAX - 511, 1024)], BlockError::Malformed),
        (Operation::Flush, 0, &[segment(512)], BlockError::Malformed),
    ];
    for &(op, sector, segments, expected) in cases {
        assert_refused(&mut full, op, sector, segments, expected);
    }
    assert_refused(&mut read_only, Operation::Write, 0, &[segment(512)], BlockError::ReadOnly);
    assert_refused(&mut read_only, Operation::Flush, 0, &[], BlockError::Unsupported);
}

fn assert_refused(bench: &mut Bench, op: Operation, sector: u64, segments: &[Segment], expected: BlockError) {
    bench.submit(op, sector, segments);
    bench.turn();
    assert_eq!(bench.told(), [(sector, Err(expected))], "{op:?} at {sector} of {segments:?}");
    assert!(bench.device.state().offered.is_empty());
}

#[test]
fn the_last_sector_can_be_read() {
    let mut bench = Bench::new();
    bench.read(SECTORS - 1);
    bench.turn();
    bench.device.complete(SECTORS - 1);
    bench.interrupt();
    assert_eq!(bench.told(), [(SECTORS - 1, Ok(()))]);
}

#[test]
fn the_task_sleeps_until_there_is_something_to_do() {
    let bench = Bench::new();
    let mut serving = pin!(serve(bench.desk.clone(), bench.device.clone()));
    assert!(ready(serving.as_mut()).is_none());
    bench.read(4);
    assert!(bench.device.state().offered.is_empty());
    assert!(ready(serving.as_mut()).is_none());
    bench.device.complete(4);
    assert_eq!(bench.told(), []);
    bench.desk.interrupt();
    assert!(ready(serving.as_mut()).is_none());
    assert_eq!(bench.told(), [(4, Ok(()))]);
}
