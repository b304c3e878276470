//! Devices that answer nonsense, break, or lose their queue task: everybody is told, once, and not before
//! the device has lost its access to memory (which every client of the bench checks).

use super::*;

/// Three reads in flight and one in the inbox.
fn busy() -> Bench {
    let mut bench = Bench::new();
    for sector in 1..=3 {
        bench.read(sector);
    }
    bench.turn();
    bench.read(4);
    bench
}

fn assert_all_told(bench: &Bench, sectors: &[u64]) {
    let mut told = bench.told();
    told.sort_by_key(|(sector, _)| *sector);
    let expected: Vec<_> = sectors.iter().map(|&sector| (sector, Err(BlockError::DeviceGone))).collect();
    assert_eq!(told, expected);
    assert!(bench.device.state().stopped);
    assert_eq!(bench.in_flight(), 0);
    let all = (0..100).map_while(|_| bench.try_reserve(1)).collect::<Vec<_>>();
    assert_eq!(all.len(), 85, "all room is free again");
}

#[test]
fn a_token_that_was_never_offered_ends_the_device() {
    for token in [200, 3, DESCRIPTORS as Token, Token::MAX] {
        let mut bench = busy();
        bench.device.invent(token);
        bench.interrupt();
        assert_all_told(&bench, &[1, 2, 3, 4]);
        // From here on every request is answered.
        bench.read(5);
        bench.interrupt();
        assert_all_told(&bench, &[5]);
    }
}

#[test]
fn a_token_that_comes_back_twice_ends_the_device() {
    let mut bench = busy();
    let token = bench.device.state().has[1].0;
    bench.device.complete(2);
    bench.device.invent(token);
    bench.interrupt();
    assert_eq!(locked(&bench.told).remove(0), (2, Ok(())));
    assert_all_told(&bench, &[1, 3, 4]);
}

#[test]
fn a_queue_that_refuses_a_request_is_broken() {
    let mut bench = busy();
    bench.device.state().refuses = true;
    bench.turn();
    assert_all_told(&bench, &[1, 2, 3, 4]);
}

#[test]
fn an_interrupt_without_completions_asks_how_the_device_is() {
    let mut bench = busy();
    bench.device.state().needs_reset = true;
    bench.turn();
    assert_eq!(bench.told(), [], "without an interrupt nobody asks");
    bench.interrupt();
    assert_all_told(&bench, &[1, 2, 3, 4]);
}

#[test]
fn the_end_of_the_queue_task_is_told_to_all() {
    let mut bench = busy();
    bench.device.complete(2);
    bench.server = None;
    assert_all_told(&bench, &[1, 2, 3, 4]);
    // Nobody serves any more, so the submission itself is answered.
    bench.read(5);
    assert_all_told(&bench, &[5]);
}

#[test]
fn a_queue_task_that_is_dropped_while_it_waits_tells_all() {
    let mut bench = Bench::new();
    bench.server = None;
    *bench.device.state() = State::default();
    bench.desk = Arc::new(Desk::new(GEOMETRY, DESCRIPTORS));
    let mut serving = Box::pin(serve(bench.desk.clone(), bench.device.clone()));
    bench.read(1);
    assert!(ready(serving.as_mut()).is_none());
    bench.read(2);
    drop(serving);
    assert_all_told(&bench, &[1, 2]);
}

#[test]
fn a_device_that_was_never_served_tells_all_when_it_goes() {
    let bench = Bench { desk: Arc::new(Desk::new(GEOMETRY, DESCRIPTORS)), ..Bench::new() };
    bench.read(1);
    assert_eq!(bench.told(), []);
    let Bench { desk, told, .. } = bench;
    drop(desk);
    assert_eq!(*locked(&told), [(1, Err(BlockError::DeviceGone))]);
}

/// Memory that notes its end.
struct Memory(Arc<Mutex<bool>>);

impl Drop for Memory {
    fn drop(&mut self) {
        *locked(&self.0) = true;
    }
}

/// A client that passes its memory on to whoever waits for it.
struct Owner {
    memory: Memory,
    waiter: executor::sync::oneshot::Sender<Memory>,
}

impl BlockClient for Owner {
    fn complete(self: Box<Self>, _result: Result<(), BlockError>) {
        let _nobody = self.waiter.send(self.memory);
    }
}

#[test]
fn a_waiter_that_goes_away_takes_no_memory_with_it() {
    let mut bench = Bench::new();
    let freed = Arc::new(Mutex::new(false));
    let (waiter, receiver) = executor::sync::oneshot::channel();
    let client = Box::new(Owner { memory: Memory(freed.clone()), waiter });
    let permit = bench.try_reserve(1).unwrap();
    let segments = [sector_at(1)][..].into();
    bench.desk.submit(BlockRequest { op: Operation::Read, sector: 1, segments, client }, permit);
    bench.turn();
    drop(receiver);
    bench.read(2);
    bench.turn();
    assert!(!*locked(&freed), "the device may still write to it");
    bench.device.complete(1);
    bench.device.complete(2);
    bench.interrupt();
    assert!(*locked(&freed));
    assert_eq!(bench.told(), [(2, Ok(()))]);
}
