//! The reading side of a port.

use core::sync::atomic::Ordering;

use super::{Registers, Serial};
use crate::port::Com;

/// The reading side of a port; there is one at a time. Dropping it gives it back.
#[derive(Debug)]
pub struct SerialReader<'a, R: Registers = Com> {
    pub(super) serial: &'a Serial<R>,
}

impl<R: Registers> SerialReader<'_, R> {
    /// Reads at least one byte, as many as are there and fit; returns how many. Zero only for an empty
    /// buffer.
    ///
    /// # Cancellation
    /// Nothing is lost: bytes are taken only when it completes.
    pub async fn read(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            let mut taken = 0;
            while taken < buffer.len()
                && let Some(byte) = self.serial.input.pop()
            {
                buffer[taken] = byte;
                taken += 1;
            }
            if taken > 0 || buffer.is_empty() {
                self.serial.nudge();
                return taken;
            }
            self.serial.input_ready.wait().await;
        }
    }

    /// Reads one byte.
    ///
    /// # Cancellation
    /// As [`read`](Self::read).
    pub async fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.read(&mut byte).await;
        byte[0]
    }
}

impl<R: Registers> Drop for SerialReader<'_, R> {
    fn drop(&mut self) {
        self.serial.has_reader.store(false, Ordering::Release);
    }
}
