//! The keyboard: scancodes in the handler, keys in an asynchronous stream.
//!
//! The handler moves bytes from the controller into a ring and wakes; what they mean is found out by
//! whoever reads the stream ([`Keys`]), with `pc-keyboard`. The ring is pushed to by the handler alone.
//! When nobody reads, it fills, and further scancodes are dropped and counted.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use executor::WaitReason;
use executor::lock::without_interrupts;
use executor::sync::Signal;
use pc_keyboard::layouts::Us104Key;
pub use pc_keyboard::{DecodedKey, KeyCode};
use pc_keyboard::{HandleControl, PS2Keyboard, ScancodeSet1};

use crate::byte_ring::ByteRing;

mod controller;
#[cfg(test)]
mod tests;

/// The keyboard's ISA interrupt line (edge-triggered, active high).
pub const IRQ: u8 = 1;

/// Scancodes that wait for the reader. A key press and release are two to eight.
const SCANCODES: usize = 256;
/// Bytes taken in one pass of the handler; the controller's queue holds 16.
const PASS: usize = 32;

/// The PS/2 keyboard. Meant to be a `static`; interrupt-safe where said.
#[derive(Debug)]
pub struct Keyboard {
    scancodes: ByteRing<SCANCODES>,
    pressed: Signal,
    has_reader: AtomicBool,
    interrupts: AtomicU64,
    dropped: AtomicU64,
}

impl Keyboard {
    /// A keyboard that nothing has been done to yet.
    #[expect(clippy::new_without_default, reason = "it is a static for one device, not a value")]
    pub const fn new() -> Self {
        Self {
            scancodes: ByteRing::new(),
            pressed: Signal::new(WaitReason::Keyboard),
            has_reader: AtomicBool::new(false),
            interrupts: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Sets the controller up: buffers flushed, scancode set 1 by translation, the keyboard's interrupt
    /// on, the mouse off. False if there is no controller or no keyboard behind it. For boot, once, with
    /// interrupts off; spins for some milliseconds at most (firmware may have left the controller in any
    /// state).
    pub fn init(&self) -> bool {
        controller::set_up()
    }

    /// Takes what has been typed before the kernel listened. Call once, after [`init`](Self::init), when
    /// the kernel has routed [`IRQ`] to [`interrupt`](Self::interrupt): a byte that waits in the
    /// controller holds the line up, so that no further edge would ever come.
    pub fn start(&self) {
        without_interrupts(|| self.take_scancodes());
    }

    /// The handler: reads the controller empty, wakes the reader. The kernel sends the end of interrupt
    /// afterwards.
    pub fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.take_scancodes();
    }

    fn take_scancodes(&self) {
        for _ in 0..PASS {
            let Some(byte) = controller::read_keyboard() else { break };
            self.record(byte);
        }
    }

    fn record(&self, scancode: u8) {
        if self.scancodes.push(scancode) {
            self.pressed.signal();
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the stream of keys; `None` while somebody has it.
    pub fn keys(&self) -> Option<Keys<'_>> {
        let free = !self.has_reader.swap(true, Ordering::AcqRel);
        free.then(|| Keys {
            keyboard: self,
            decoder: PS2Keyboard::new(ScancodeSet1::new(), Us104Key, HandleControl::MapLettersToUnicode),
        })
    }

    /// Interrupts handled since boot. May be called from anywhere.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// Scancodes dropped because nobody read. May be called from anywhere.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The keys pressed, as an asynchronous stream; there is one at a time. Dropping it gives it back.
pub struct Keys<'a> {
    keyboard: &'a Keyboard,
    decoder: PS2Keyboard<Us104Key, ScancodeSet1>,
}

impl Keys<'_> {
    /// The next key pressed: a character (Ctrl with a letter is its control character), or a raw key
    /// that has none. Keys of the layout US 104. Scancodes that mean nothing are skipped.
    ///
    /// # Cancellation
    /// Nothing is lost: a key is taken only when it completes, and what has been seen of a longer
    /// sequence is kept for the next call.
    pub async fn next(&mut self) -> DecodedKey {
        loop {
            while let Some(byte) = self.keyboard.scancodes.pop() {
                if let Ok(Some(event)) = self.decoder.add_byte(byte)
                    && let Some(key) = self.decoder.process_keyevent(event)
                {
                    return key;
                }
            }
            self.keyboard.pressed.wait().await;
        }
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        self.keyboard.has_reader.store(false, Ordering::Release);
    }
}

impl core::fmt::Debug for Keys<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Keys").finish_non_exhaustive()
    }
}
