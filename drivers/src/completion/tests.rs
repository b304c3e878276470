//! The books against a fake device whose completions the test orders.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::pending::STATUS_OK;
use super::*;
use crate::block::{BlockClient, Segment};

mod device_gone;
mod gathering;
mod interrupts;
mod order;
mod room;

const DESCRIPTORS: usize = 256;
const SECTORS: u64 = 1000;
const GEOMETRY: Geometry = Geometry { sectors: SECTORS, read_only: false, can_flush: true };

/// What the fake device has and has done.
#[derive(Default)]
struct State {
    /// Requests that it has: token, operation, sector.
    has: Vec<(Token, Operation, u64)>,
    /// What it hands back, in order.
    used: VecDeque<(Token, Used)>,
    /// Sectors in the order in which they were offered.
    offered: Vec<u64>,
    notifications: u32,
    stopped: bool,
    refuses: bool,
    needs_reset: bool,
    /// What it was asked for, in order.
    asked: Vec<bool>,
    /// A request that it hands back just before it sees that it is asked for interrupts.
    late: Option<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The test's end of the fake device.
#[derive(Clone, Default)]
struct Device(Arc<Mutex<State>>);

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }

    /// Hands the request for a sector back, done.
    fn complete(&self, sector: u64) {
        self.complete_with(sector, STATUS_OK, None);
    }

    fn complete_with(&self, sector: u64, status: u8, written: Option<u64>) {
        let mut state = self.state();
        let place = state.has.iter().position(|request| request.2 == sector).expect("the device has it");
        let (token, op, _) = state.has.remove(place);
        let data = if op == Operation::Read { 512 } else { 0 };
        state.used.push_back((token, Used { status, written: written.unwrap_or(data + 1) }));
    }

    /// Hands back a token of its own invention.
    fn invent(&self, token: Token) {
        self.state().used.push_back((token, Used { status: STATUS_OK, written: 513 }));
    }
}

impl Queue for Device {
    const TOKENS: usize = DESCRIPTORS;

    fn offer(&mut self, op: Operation, sector: u64, segments: &Segments) -> Result<Token, Broken> {
        let mut state = self.state();
        assert!(!state.stopped, "nothing is offered to a stopped device");
        let used: usize = state.has.len() + state.used.len();
        assert!((used + 1) * 3 <= DESCRIPTORS || segments.len() > 1, "room was reserved");
        // The device may see a request even if the queue then finds itself broken.
        let taken = |token: &Token| {
            state.has.iter().any(|request| request.0 == *token)
                || state.used.iter().any(|used| used.0 == *token)
        };
        let token = (0..DESCRIPTORS as Token).find(|token| !taken(token)).ok_or(Broken)?;
        state.has.push((token, op, sector));
        state.offered.push(sector);
        if state.refuses { Err(Broken) } else { Ok(token) }
    }

    fn notify(&mut self) {
        self.state().notifications += 1;
    }

    fn ask_for_interrupts(&mut self, asked: bool) {
        let late = if asked { self.state().late.take() } else { None };
        if let Some(sector) = late {
            self.complete(sector);
        }
        self.state().asked.push(asked);
    }

    fn peek(&self) -> Option<Token> {
        self.state().used.front().map(|(token, _)| *token)
    }

    fn take(&mut self, token: Token, _op: Operation, _segments: &Segments) -> Result<Used, Broken> {
        let (front, used) = self.state().used.pop_front().ok_or(Broken)?;
        if front == token { Ok(used) } else { Err(Broken) }
    }

    fn needs_reset(&mut self) -> bool {
        self.state().needs_reset
    }

    fn stop(&mut self) {
        self.state().stopped = true;
    }
}

type Told = Arc<Mutex<Vec<(u64, Result<(), BlockError>)>>>;

/// A client that notes what it is told, and that the device is through with its memory by then.
struct Client {
    sector: u64,
    device: Device,
    told: Told,
}

impl BlockClient for Client {
    fn complete(self: Box<Self>, result: Result<(), BlockError>) {
        let state = self.device.state();
        let has = state.has.iter().any(|request| request.2 == self.sector);
        // A test that has failed already is not to abort.
        let is_free = !has || state.stopped || std::thread::panicking();
        assert!(is_free, "sector {} still belongs to the device", self.sector);
        drop(state);
        locked(&self.told).push((self.sector, result));
    }
}

/// A device, its queue task driven by hand, and what clients were told.
struct Bench {
    device: Device,
    desk: Arc<Desk>,
    server: Option<Server<Device>>,
    told: Told,
}

impl Bench {
    fn new() -> Self {
        Self::with(GEOMETRY)
    }

    fn with(geometry: Geometry) -> Self {
        let device = Device::default();
        let desk = Arc::new(Desk::new(geometry, DESCRIPTORS));
        let server = Some(Server::new(desk.clone(), device.clone()));
        Self { device, desk, server, told: Told::default() }
    }

    fn try_reserve(&self, segments: usize) -> Option<RoomPermit> {
        ready(pin!(self.desk.room.reserve(segments)))
    }

    fn submit(&self, op: Operation, sector: u64, segments: &[Segment]) {
        let permit = self.try_reserve(segments.len()).expect("there is room");
        self.submit_with(permit, op, sector, segments);
    }

    fn submit_with(&self, permit: RoomPermit, op: Operation, sector: u64, segments: &[Segment]) {
        let client = Client { sector, device: self.device.clone(), told: self.told.clone() };
        let request = BlockRequest { op, sector, segments: segments.into(), client: Box::new(client) };
        self.desk.submit(request, permit);
    }

    /// Reads one sector.
    fn read(&self, sector: u64) {
        self.submit(Operation::Read, sector, &[sector_at(sector)]);
    }

    fn turn(&mut self) {
        self.server.as_mut().expect("the queue task runs").turn();
    }

    fn interrupt(&mut self) {
        self.desk.interrupt();
        self.turn();
    }

    /// What clients were told since the last look.
    fn told(&self) -> Vec<(u64, Result<(), BlockError>)> {
        core::mem::take(&mut locked(&self.told))
    }

    fn in_flight(&self) -> u64 {
        self.desk.counters.in_flight.load(Ordering::Relaxed)
    }
}

/// Memory for a sector that the fake device never touches.
fn sector_at(sector: u64) -> Segment {
    Segment::for_fake(0x10_0000 + sector * 512, 512)
}

fn ready<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
