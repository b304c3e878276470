//! A whole virtio device of the simplest kind: one queue of buffers that the device fills, such as entropy.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | fill, fill | a mutex: the device has one buffer at a time |
//! | fill, a fill that was dropped | the buffer stays with the queue; the next one waits for it first |
//! | interrupt, the look before the wait for it | the signal is remembered |
//! | lend, a completion that nobody waits for | the device has broken the rules: it would pass for that of the next buffer |
#![allow(unsafe_code, reason = "memory that a device writes")]

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{Ordering, fence};

use executor::WaitReason;
use executor::sync::{Mutex, Signal};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceType, Transport};

use super::{Device, Doorbell, ProbeError};
use crate::dma::{DmaBuffer, Machine};
use crate::pci::{Function, InterruptTarget};

/// One buffer at a time needs no more. A device whose queue is shorter is refused.
const DESCRIPTORS: usize = 2;
/// The device's only queue.
const QUEUE: u16 = 0;

/// The device is in trouble, or has broken the rules. It was stopped, and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the device is gone")
    }
}

impl core::error::Error for Gone {}

/// A virtio device that fills the buffers that it is given, one after another.
pub struct Filler {
    completed: Signal,
    exchange: Mutex<Exchange<Wired>>,
}

/// The queue, and the buffer that the device has.
struct Exchange<D: Side> {
    device: D,
    queue: VirtQueue<Machine, DESCRIPTORS>,
    lent: Option<(u16, DmaBuffer)>,
    is_gone: bool,
}

/// What the driver needs of a device besides its queue.
trait Side {
    /// Tells it that there is a buffer.
    fn notify(&mut self);
    /// Whether it has given up.
    fn is_in_trouble(&mut self) -> bool;
    /// From here on it reaches no memory.
    fn stop(&mut self);
}

/// One on the bus.
struct Wired {
    device: Device,
    doorbell: Doorbell,
}

impl Side for Wired {
    fn notify(&mut self) {
        self.doorbell.ring();
    }

    fn is_in_trouble(&mut self) -> bool {
        self.device.needs_reset()
    }

    fn stop(&mut self) {
        self.device.stop();
    }
}

impl Filler {
    /// Sets a device of this type up, with its interrupts going to the given vector and CPU. Spins for as long as the device
    /// takes to answer; not for interrupt handlers.
    ///
    /// # Errors
    /// When the function is no such device, or cannot be used.
    pub fn probe(
        function: &Function,
        kind: DeviceType,
        interrupt: InterruptTarget,
    ) -> Result<Arc<Self>, ProbeError> {
        let (mut device, _) = Device::negotiate(function, kind, 0)?;
        let doorbell = device.direct(QUEUE, interrupt)?;
        let queue = VirtQueue::new(&mut *device.transport, QUEUE, false, false).map_err(ProbeError::Queue)?;
        device.transport.finish_init();
        let exchange = Exchange::new(Wired { device, doorbell }, queue);
        Ok(Arc::new(Self { completed: Signal::new(WaitReason::Other), exchange: Mutex::new(exchange) }))
    }

    /// The handler: wakes whoever waits. The kernel sends the end of interrupt afterwards.
    pub fn interrupt(&self) {
        self.completed.signal();
    }

    /// Has the device fill a buffer, and says how many bytes it wrote, from the beginning of the buffer on. First come, first
    /// served.
    ///
    /// # Errors
    /// [`Gone`], for this buffer and all that follow.
    ///
    /// # Cancellation
    /// The device goes on, and the buffer is freed when it has completed it.
    pub async fn fill(&self, buffer: DmaBuffer) -> Result<(DmaBuffer, usize), Gone> {
        let mut exchange = self.exchange.lock().await;
        while exchange.lent.is_some() {
            // Of one who does not wait any more.
            drop(self.finish(&mut exchange).await?);
        }
        exchange.lend(buffer)?;
        self.finish(&mut exchange).await
    }

    /// Waits for the buffer that the device has.
    async fn finish(&self, exchange: &mut Exchange<Wired>) -> Result<(DmaBuffer, usize), Gone> {
        loop {
            if let Some(filled) = exchange.take()? {
                return Ok(filled);
            }
            self.completed.wait().await;
        }
    }
}

impl<D: Side> Exchange<D> {
    fn new(device: D, queue: VirtQueue<Machine, DESCRIPTORS>) -> Self {
        Self { device, queue, lent: None, is_gone: false }
    }

    /// Gives the device a buffer. It has none.
    fn lend(&mut self, buffer: DmaBuffer) -> Result<(), Gone> {
        if self.is_gone {
            return Err(Gone);
        }
        if self.queue.peek_used().is_some() {
            return Err(self.give_up());
        }
        // SAFETY: the buffer stays in `lent` until the device has given it back or is stopped.
        let token = unsafe { self.queue.add(&[], &mut [buffer.segment().as_device_writes()]) };
        let Ok(token) = token else { return Err(self.give_up()) };
        self.lent = Some((token, buffer));
        // The device's wish to be notified is read after the buffer is visible: else both sides could miss.
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            self.device.notify();
        }
        Ok(())
    }

    /// The buffer, if the device has completed it.
    fn take(&mut self) -> Result<Option<(DmaBuffer, usize)>, Gone> {
        let Some(done) = self.queue.peek_used() else {
            return if self.is_gone || self.device.is_in_trouble() { Err(self.give_up()) } else { Ok(None) };
        };
        let Some((_, buffer)) = self.lent.take_if(|(token, _)| *token == done) else {
            return Err(self.give_up());
        };
        // SAFETY: the buffer is the one that was added for this token.
        let written = unsafe { self.queue.pop_used(done, &[], &mut [buffer.segment().as_device_writes()]) };
        match written {
            Ok(bytes) if bytes as usize <= buffer.as_bytes().len() => Ok(Some((buffer, bytes as usize))),
            _ => Err(self.give_up()),
        }
    }

    /// Stops the device; then what it has is ours again.
    fn give_up(&mut self) -> Gone {
        self.device.stop();
        self.lent = None;
        self.is_gone = true;
        Gone
    }
}

impl<D: Side> Drop for Exchange<D> {
    fn drop(&mut self) {
        // Before the queue and the buffer go.
        self.device.stop();
    }
}

#[cfg(test)]
mod tests;
