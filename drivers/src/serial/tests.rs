//! The driver against a model of the device: FIFOs, interrupt sources, and a line of which only rising
//! edges are seen.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::{vec, vec::Vec};
use core::cell::{Cell, RefCell};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use uart_16550::spec::registers::IER;

use super::*;
use crate::mirror::MirrorPlace;

type Event = Box<dyn FnOnce()>;

/// A 16550 whose transmitter empties when the test says so.
#[derive(Default)]
struct Model {
    enabled: Cell<u8>,
    line_control: Cell<u8>,
    fifos_enabled: Cell<bool>,
    errors: Cell<u8>,
    received: RefCell<VecDeque<u8>>,
    /// In the transmitter's FIFO.
    sending: RefCell<VecDeque<u8>>,
    /// On the line.
    sent: RefCell<Vec<u8>>,
    /// The transmitter has become empty since the source was turned on or the FIFO was filled.
    empty_pending: Cell<bool>,
    /// Bytes that go out by themselves at each look at the status: how a synchronous writer sees it.
    moves_by_itself: Cell<bool>,
    line: Cell<bool>,
    edges: Cell<u32>,
    /// What happens elsewhere at the moment of the next write to this register.
    meanwhile: Cell<Option<(usize, Event)>>,
}

impl Model {
    fn update_line(&self) {
        let enabled = IER::from_bits_retain(self.enabled.get());
        let data = enabled.contains(IER::DATA_READY) && !self.received.borrow().is_empty();
        let empty = enabled.contains(IER::THR_EMPTY) && self.empty_pending.get();
        let level = data || empty;
        if level && !self.line.replace(level) {
            self.edges.set(self.edges.get() + 1);
        }
        self.line.set(level);
    }

    fn transmit_all(&self) {
        self.sent.borrow_mut().extend(self.sending.borrow_mut().drain(..));
        self.empty_pending.set(true);
        self.update_line();
    }

    /// Bytes from the other side; those beyond the FIFO are lost, as on a line without flow control.
    fn arrive(&self, bytes: &[u8]) {
        for &byte in bytes {
            if self.received.borrow().len() < FIFO_SIZE {
                self.received.borrow_mut().push_back(byte);
            } else {
                self.errors.set(self.errors.get() | LSR::OVERRUN_ERROR.bits());
            }
        }
        self.update_line();
    }
}

impl Registers for &Model {
    fn read(&self, offset: usize) -> u8 {
        match offset {
            offsets::DATA => {
                let byte = self.received.borrow_mut().pop_front().unwrap_or(0);
                self.update_line();
                byte
            }
            offsets::LSR => {
                let mut status = LSR::from_bits_retain(self.errors.take());
                status.set(LSR::DATA_READY, !self.received.borrow().is_empty());
                let empty = self.sending.borrow().is_empty();
                status.set(LSR::THR_EMPTY | LSR::TRANSMITTER_EMPTY, empty);
                if self.moves_by_itself.get() {
                    self.transmit_all();
                }
                status.bits()
            }
            offsets::LCR => self.line_control.get(),
            offsets::ISR if self.fifos_enabled.get() => (ISR::FIFOS_ENABLED0 | ISR::FIFOS_ENABLED1).bits(),
            _ => 0,
        }
    }

    fn write(&self, offset: usize, value: u8) {
        match self.meanwhile.take() {
            Some((at, event)) if at == offset => event(),
            other => self.meanwhile.set(other),
        }
        match offset {
            offsets::LCR => self.line_control.set(value),
            _ if LCR::from_bits_retain(self.line_control.get()).contains(LCR::DLAB) => {}
            offsets::FCR => {
                self.fifos_enabled.set(FCR::from_bits_retain(value).contains(FCR::FIFO_ENABLE));
            }
            offsets::DATA => {
                let places = if self.fifos_enabled.get() { FIFO_SIZE } else { 1 };
                assert!(self.sending.borrow().len() < places, "the FIFO overflows");
                self.sending.borrow_mut().push_back(value);
                self.empty_pending.set(false);
            }
            offsets::IER => {
                let turned = (self.enabled.replace(value) ^ value) & IER::THR_EMPTY.bits() != 0;
                if turned {
                    let on = value & IER::THR_EMPTY.bits() != 0;
                    self.empty_pending.set(on && self.sending.borrow().is_empty());
                }
            }
            _ => {}
        }
        self.update_line();
    }
}

fn started(model: &Model) -> Serial<&Model> {
    let serial = Serial::with_registers(model, None);
    assert!(serial.init());
    serial.start();
    serial
}

/// Calls the handler for each edge, as the interrupt controller would; returns how many there were.
fn handle_edges(serial: &Serial<&Model>) -> u32 {
    let mut handled = 0;
    while serial.registers.edges.replace(0) > 0 {
        serial.interrupt();
        handled += 1;
        assert!(handled < 100_000, "a storm of interrupts");
    }
    handled
}

/// Lets the line run until nothing happens any more.
fn run(serial: &Serial<&Model>) {
    for _ in 0..100_000 {
        let handled = handle_edges(serial);
        let idle = serial.registers.sending.borrow().is_empty();
        if !idle {
            serial.registers.transmit_all();
        } else if handled == 0 {
            return;
        }
    }
    panic!("the line does not come to rest");
}

fn poll<F: Future>(future: core::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position % 251) as u8).collect()
}

#[test]
fn output_larger_than_the_ring_goes_out_whole_and_in_order() {
    let model = Model::default();
    let serial = started(&model);
    let bytes = pattern(3 * OUTPUT_BYTES + 7);
    let mut writing = pin!(serial.write_all(&bytes));
    for _ in 0..10 {
        if poll(writing.as_mut()).is_ready() {
            break;
        }
        run(&serial);
    }
    run(&serial);
    assert!(*model.sent.borrow() == bytes);
    assert_eq!(serial.stats().sent, bytes.len() as u64);
    assert_eq!(model.enabled.get() & IER::THR_EMPTY.bits(), 0, "an idle transmitter raises nothing");
}

#[test]
fn messages_of_two_writers_do_not_mix() {
    let model = Model::default();
    let serial = started(&model);
    let (first, second) = ([b'1'; OUTPUT_BYTES + 100], [b'2'; 50]);
    let mut writing_first = pin!(serial.write_all(&first));
    let mut writing_second = pin!(serial.write_all(&second));
    assert!(poll(writing_first.as_mut()).is_pending());
    assert!(poll(writing_second.as_mut()).is_pending());
    run(&serial);
    assert!(poll(writing_second.as_mut()).is_pending(), "it is not the second one's turn yet");
    assert!(poll(writing_first.as_mut()).is_ready());
    assert!(poll(writing_second.as_mut()).is_ready());
    run(&serial);
    assert!(*model.sent.borrow() == [&first[..], &second[..]].concat());
}

#[test]
fn a_writer_that_gives_up_lets_the_next_one_go_on() {
    let model = Model::default();
    let serial = started(&model);
    let long = pattern(OUTPUT_BYTES + 100);
    {
        let mut writing = pin!(serial.write_all(&long));
        assert!(poll(writing.as_mut()).is_pending());
    }
    run(&serial);
    assert!(poll(pin!(serial.write_all(b"next"))).is_ready());
    run(&serial);
    assert!(*model.sent.borrow() == [&long[..OUTPUT_BYTES], b"next"].concat());
}

#[test]
fn a_flood_of_input_with_flow_control_loses_nothing() {
    let model = Model::default();
    let serial = started(&model);
    let mut reader = serial.reader().unwrap();
    let flood = pattern(64 << 10);
    let mut rest = &flood[..];
    let mut seen = Vec::<u8>::new();
    let mut buffer = [0; 100];
    while seen.len() < flood.len() {
        // The sender fills the FIFO as often as it can before the reader comes to run.
        for _ in 0..1000 {
            let room = FIFO_SIZE - model.received.borrow().len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            model.arrive(now);
            rest = later;
            if handle_edges(&serial) == 0 {
                break;
            }
        }
        let Poll::Ready(length) = poll(pin!(reader.read(&mut buffer))) else {
            panic!("{} bytes are on their way and nobody comes", flood.len() - seen.len());
        };
        seen.extend(&buffer[..length]);
    }
    assert!(seen == flood);
    assert_eq!((serial.stats().overruns, serial.stats().received), (0, flood.len() as u64));
}

#[test]
fn a_flood_without_flow_control_and_without_a_reader_is_counted() {
    let model = Model::default();
    let serial = started(&model);
    for chunk in pattern(64 << 10).chunks(FIFO_SIZE) {
        model.arrive(chunk);
        handle_edges(&serial);
    }
    assert_eq!(serial.stats().received, INPUT_BYTES as u64);
    assert_eq!(model.enabled.get(), 0, "a full ring turns the source off, so that there is no storm");
    // The status is read when the port is read again: the overrun is seen then.
    let mut reader = serial.reader().unwrap();
    let mut buffer = [0; 16];
    assert!(poll(pin!(reader.read(&mut buffer))).is_ready());
    handle_edges(&serial);
    assert_eq!(serial.stats().overruns, 1);
}

#[test]
fn damaged_bytes_are_dropped_and_counted() {
    let model = Model::default();
    let serial = started(&model);
    model.errors.set(LSR::BREAK_INTERRUPT.bits());
    model.arrive(b"\0ok");
    handle_edges(&serial);
    let mut reader = serial.reader().unwrap();
    let mut buffer = [0; 16];
    assert_eq!(poll(pin!(reader.read(&mut buffer))), Poll::Ready(2));
    assert_eq!(&buffer[..2], b"ok");
    assert_eq!(serial.stats().damaged, 1);
}

#[test]
fn write_now_first_sends_what_was_queued() {
    let model = Model::default();
    let serial = started(&model);
    assert!(poll(pin!(serial.write_all(b"queued, "))).is_ready());
    model.moves_by_itself.set(true);
    serial.write_now(b"panic");
    assert_eq!(*model.sent.borrow(), b"queued, panic");
}

#[test]
fn write_now_works_while_the_interrupted_code_has_the_transmitter() {
    let model = Model::default();
    let serial = started(&model);
    model.moves_by_itself.set(true);
    serial.sending.store(true, Ordering::Relaxed);
    serial.write_now(b"panic");
    assert_eq!(*model.sent.borrow(), b"panic");
    assert!(serial.sending.load(Ordering::Relaxed), "it does not let go what is another's");
}

#[test]
fn write_now_gives_up_on_a_line_that_takes_nothing_and_counts() {
    let model = Model::default();
    let serial = started(&model);
    // The first 16 bytes fit the FIFO; nothing ever leaves it.
    serial.write_now(&[b'x'; 100]);
    assert_eq!(serial.stats().unsent, 84);
    run(&serial);
    assert!(poll(pin!(serial.write_all(b"later"))).is_ready());
    run(&serial);
    assert!(model.sent.borrow().ends_with(b"later"));
}

#[test]
fn output_goes_on_after_write_now_held_the_handler_off() {
    let model = Model::default();
    let serial = started(&model);
    let bytes = pattern(1000);
    assert!(poll(pin!(serial.write_all(&bytes))).is_ready());
    // As if the handler came while `write_now` of another CPU was at it.
    serial.sending.store(true, Ordering::SeqCst);
    run(&serial);
    serial.sending.store(false, Ordering::SeqCst);
    serial.nudge();
    run(&serial);
    assert!(*model.sent.borrow() == bytes);
}

/// A model and its driver that something else may reach too.
fn shared() -> (&'static Model, &'static Serial<&'static Model>) {
    let model = Box::leak(Box::new(Model::default()));
    let serial = Box::leak(Box::new(Serial::with_registers(&*model, None)));
    assert!(serial.init());
    serial.start();
    (model, serial)
}

#[test]
fn a_byte_that_arrives_while_the_handler_sends_is_not_overlooked() {
    let (model, serial) = shared();
    let mut reader = serial.reader().unwrap();
    model.meanwhile.set(Some((offsets::DATA, Box::new(|| model.arrive(b"!")))));
    assert!(poll(pin!(serial.write_all(b"out"))).is_ready());
    run(serial);
    assert_eq!(poll(pin!(reader.read_byte())), Poll::Ready(b'!'));
}

#[test]
fn a_byte_that_another_cpu_writes_while_the_handler_ends_is_sent() {
    let (model, serial) = shared();
    assert!(poll(pin!(serial.write_all(b"first"))).is_ready());
    // The handler finds the ring empty and is about to turn the source off. The other CPU sees it on,
    // and leaves it to the handler.
    let other_cpu = move || {
        let late = Box::new(|| assert!(serial.output.push(b'!')));
        model.meanwhile.set(Some((offsets::IER, late)));
    };
    model.meanwhile.set(Some((offsets::DATA, Box::new(other_cpu))));
    run(serial);
    assert_eq!(*model.sent.borrow(), b"first!");
}

#[test]
fn there_is_no_port_where_nothing_answers() {
    struct Nothing;
    impl Registers for Nothing {
        fn read(&self, _offset: usize) -> u8 {
            0xff
        }
        fn write(&self, _offset: usize, _value: u8) {}
    }
    assert!(!Serial::with_registers(Nothing, None).init());
}

#[test]
fn the_mirror_has_all_that_is_sent_in_the_line_s_order() {
    static MIRROR: Mirror = Mirror::new();
    let model = Model::default();
    let serial = Serial::with_registers(&model, Some(&MIRROR));
    assert!(serial.init());
    serial.start();
    let message = pattern(40_000);
    let mut writing = pin!(serial.write_all(&message));
    assert!(poll(writing.as_mut()).is_pending());
    model.moves_by_itself.set(true);
    serial.write_now(b"urgent");
    model.moves_by_itself.set(false);
    while poll(writing.as_mut()).is_pending() {
        run(&serial);
    }
    run(&serial);
    let (mut place, mut bytes) = (MirrorPlace::default(), vec![0; 50_000]);
    let (count, missed) = place.read(&MIRROR, &mut bytes);
    assert_eq!((count, missed), (40_006, 0));
    assert!(bytes[..count] == model.sent.borrow()[..], "the line and the mirror differ");
    assert!(poll(pin!(MIRROR.more())).is_ready());
}
