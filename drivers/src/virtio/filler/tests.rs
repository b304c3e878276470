//! Devices that keep the rules, and devices that break them. The device's side of the queue is written as a device would.
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;

use virtio_drivers::transport::{DeviceStatus, InterruptStatus};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::*;
use crate::dma::{self, DmaMemory};

/// Bytes of the buffer that is lent.
const BYTES: usize = 100;

fn pages(count: usize) -> Layout {
    Layout::from_size_align(count * 4096, 4096).unwrap()
}

/// The process's own memory, at its own addresses.
fn memory() {
    let memory = DmaMemory {
        phys_offset: 0,
        // SAFETY: no layout here has no bytes.
        alloc: |count| NonNull::new(unsafe { alloc_zeroed(pages(count)) }).map(|place| place.as_ptr() as u64),
        // SAFETY: it was allocated with the same layout.
        free: |place, count| unsafe { dealloc(place as *mut u8, pages(count)) },
        map_device: |_, _| None,
        map_memory: |_, _| None,
    };
    // SAFETY: all memory of the process is visible at its address.
    unsafe { dma::init(memory) };
}

/// What a device has been told, and how it is.
#[derive(Default)]
struct State {
    /// Where it tells what it is done with.
    used: Cell<u64>,
    notified: Cell<u32>,
    is_in_trouble: Cell<bool>,
    is_stopped: Cell<bool>,
}

impl State {
    /// The device completes this descriptor, having written so many bytes.
    fn completes(&self, descriptor: u32, written: u32) {
        let ring = self.used.get() as *mut u16;
        // SAFETY: the queue is there, and nobody looks at it meanwhile: flags, index, and pairs of numbers.
        unsafe {
            let index = ring.add(1).read_volatile();
            let place = ring.add(2).cast::<[u32; 2]>().add(usize::from(index) % DESCRIPTORS);
            place.write_volatile([descriptor, written]);
            ring.add(1).write_volatile(index.wrapping_add(1));
        }
    }
}

impl Side for Rc<State> {
    fn notify(&mut self) {
        self.notified.set(self.notified.get() + 1);
    }

    fn is_in_trouble(&mut self) -> bool {
        self.is_in_trouble.get()
    }

    fn stop(&mut self) {
        self.is_stopped.set(true);
    }
}

/// All that a queue asks when it is set up.
struct Setup(Rc<State>);

impl Transport for Setup {
    fn device_type(&self) -> DeviceType {
        DeviceType::EntropySource
    }

    fn read_device_features(&mut self) -> u64 {
        0
    }

    fn write_driver_features(&mut self, _: u64) {}

    fn max_queue_size(&mut self, _: u16) -> u32 {
        DESCRIPTORS as u32
    }

    fn notify(&mut self, _: u16) {}

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::DRIVER_OK
    }

    fn set_status(&mut self, _: DeviceStatus) {}

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, _: u16, _: u32, _: u64, _: u64, device_area: u64) {
        self.0.used.set(device_area);
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, _: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> virtio_drivers::Result<T> {
        Err(virtio_drivers::Error::Unsupported)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::Unsupported)
    }
}

/// A device, and a driver that has lent it its first buffer.
fn lent() -> (Rc<State>, Exchange<Rc<State>>) {
    memory();
    let device = Rc::new(State::default());
    let queue = VirtQueue::new(&mut Setup(device.clone()), QUEUE, false, false).unwrap();
    let mut exchange = Exchange::new(device.clone(), queue);
    exchange.lend(buffer()).unwrap();
    assert_eq!(device.notified.get(), 1);
    (device, exchange)
}

fn buffer() -> DmaBuffer {
    DmaBuffer::new(BYTES).unwrap()
}

/// The descriptor of the buffer that the device has.
fn token(exchange: &Exchange<Rc<State>>) -> u32 {
    exchange.lent.as_ref().unwrap().0.into()
}

/// The device is stopped before the buffer is free, and whoever comes later is told at once.
#[track_caller]
fn is_gone(device: &State, exchange: &mut Exchange<Rc<State>>) {
    assert!(device.is_stopped.get(), "it still reaches memory");
    assert!(exchange.lent.is_none());
    assert_eq!(exchange.lend(buffer()).unwrap_err(), Gone);
    assert!(exchange.take().is_err());
}

#[test]
fn a_buffer_comes_back_with_what_was_written() {
    let (device, mut exchange) = lent();
    for written in [0, 7, BYTES as u32] {
        assert!(exchange.take().unwrap().is_none(), "it is not done");
        device.completes(token(&exchange), written);
        let (filled, bytes) = exchange.take().unwrap().unwrap();
        assert_eq!((filled.as_bytes().len(), bytes), (BYTES, written as usize));
        exchange.lend(buffer()).unwrap();
    }
    assert!(!device.is_stopped.get());
    drop(exchange);
    assert!(device.is_stopped.get(), "before the queue's memory is free");
}

#[test]
fn a_device_that_wrote_more_than_there_is_room_for_is_stopped() {
    for written in [BYTES as u32 + 1, u32::MAX] {
        let (device, mut exchange) = lent();
        device.completes(token(&exchange), written);
        assert!(exchange.take().is_err());
        is_gone(&device, &mut exchange);
    }
}

#[test]
fn a_device_that_completes_what_it_has_not_is_stopped() {
    for offset in [1, 2, u32::from(u16::MAX)] {
        let (device, mut exchange) = lent();
        device.completes(token(&exchange) + offset, 1);
        assert!(exchange.take().is_err(), "{offset}");
        is_gone(&device, &mut exchange);
    }
}

#[test]
fn a_device_that_completes_twice_is_stopped() {
    let (device, mut exchange) = lent();
    let token = token(&exchange);
    device.completes(token, 1);
    assert!(exchange.take().unwrap().is_some());
    device.completes(token, 1);
    assert!(exchange.take().is_err());
    is_gone(&device, &mut exchange);
}

#[test]
fn a_second_completion_does_not_pass_for_that_of_the_next_buffer() {
    let (device, mut exchange) = lent();
    let token = token(&exchange);
    device.completes(token, 1);
    device.completes(token, 1);
    assert!(exchange.take().unwrap().is_some());
    assert_eq!(exchange.lend(buffer()).unwrap_err(), Gone);
    is_gone(&device, &mut exchange);
}

#[test]
fn a_device_in_trouble_is_stopped_and_keeps_nobody_waiting() {
    let (device, mut exchange) = lent();
    device.is_in_trouble.set(true);
    assert!(exchange.take().is_err());
    is_gone(&device, &mut exchange);
}
