//! Typed lines, from the serial port and the keyboard at once.

use alloc::string::String;

use drivers::{keyboard::Keys, serial::SerialReader};
use futures_util::{FutureExt, select_biased};
use pc_keyboard::{DecodedKey, KeyCode};

use super::output;
use crate::{machine::KEYBOARD, screen, serial::CONSOLE};

/// The longest line in bytes. What follows is read and thrown away up to the line's end.
pub(super) const MAX_LINE: usize = 1024;

/// The line was longer than [`MAX_LINE`].
pub(super) struct TooLong;

pub(super) struct Input {
    serial: SerialReader<'static>,
    keys: Keys<'static>,
}

impl Input {
    /// Takes the reading side of both devices.
    ///
    /// # Panics
    /// When somebody has them already: there is one console.
    pub(super) fn new() -> Self {
        Self {
            serial: CONSOLE.reader().expect("the console is the serial port's one reader"),
            keys: KEYBOARD.keys().expect("the console is the keyboard's one reader"),
        }
    }

    /// Reads a line, echoing what is typed.
    ///
    /// # Cancellation
    /// The part of the line that was read is lost.
    pub(super) async fn line(&mut self, line: &mut String) -> Result<(), TooLong> {
        line.clear();
        let mut too_long = false;
        loop {
            match self.next().await {
                '\r' | '\n' => {
                    output().write("\n").await;
                    return if too_long { Err(TooLong) } else { Ok(()) };
                }
                '\u{8}' | '\u{7f}' => {
                    if line.pop().is_some() {
                        output().write("\u{8} \u{8}").await;
                    }
                }
                typed if typed.is_control() => {}
                typed if line.len() + typed.len_utf8() <= MAX_LINE => {
                    line.push(typed);
                    output().write(typed.encode_utf8(&mut [0; 4])).await;
                }
                _ => too_long = true,
            }
        }
    }

    /// The next character; keys that are none, and bytes that are not ASCII, are skipped.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> char {
        loop {
            select_biased! {
                byte = self.serial.read_byte().fuse() => {
                    if byte.is_ascii() {
                        return byte.into();
                    }
                }
                key = self.keys.next().fuse() => {
                    match key {
                        DecodedKey::RawKey(KeyCode::PageUp) => screen::look_back(1),
                        DecodedKey::RawKey(KeyCode::PageDown) => screen::look_back(-1),
                        DecodedKey::RawKey(_) => {}
                        DecodedKey::Unicode(character) => {
                            screen::look_at_end();
                            return character;
                        }
                    }
                }
            }
        }
    }
}
