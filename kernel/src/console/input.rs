//! Typed lines, from the serial port and the keyboard at once.

use alloc::string::String;

use conquer_once::spin::OnceCell;
use drivers::{
    keyboard::Keys,
    line::{Complete, Key, KeyDecoder, LineEditor, Pressed, TooLong, literals},
    serial::SerialReader,
};
use executor::sync::{Mutex, MutexGuard};
use futures_util::{FutureExt, select_biased};
use pc_keyboard::DecodedKey;

use super::{commands::COMMANDS, output};
use crate::{
    machine::{self, KEYBOARD},
    screen,
    serial::CONSOLE,
};

/// The longest line in bytes. What follows is read and thrown away up to the line's end.
pub(super) const MAX_LINE: usize = 1024;

/// What stands before a line.
const PROMPT: &str = "faultline> ";

static INPUT: OnceCell<Mutex<Input>> = OnceCell::uninit();

/// The console's input: who has it reads what is typed. Both devices' reading sides are taken the first time.
///
/// # Cancellation
/// Gives up the place in the line.
pub(super) async fn take() -> MutexGuard<'static, Input> {
    INPUT.get_or_init(|| Mutex::new(Input::new())).lock().await
}

/// The same where nobody has it; `None` also where there is no console.
pub(super) fn try_take() -> Option<MutexGuard<'static, Input>> {
    INPUT.get()?.try_lock().ok()
}

pub(super) struct Input {
    serial: SerialReader<'static>,
    keys: Keys<'static>,
    decoder: KeyDecoder,
    editor: LineEditor,
}

/// Something that came in, before it is known what it means.
enum Typed {
    Byte(u8),
    Key(DecodedKey),
}

/// Commands by their names, then what their usages name literally, and disks.
struct Words;

impl Complete for Words {
    fn complete(&self, words: &[&str], add: &mut dyn FnMut(&str)) {
        let Some((name, _)) = words.split_first() else {
            COMMANDS.iter().for_each(|command| add(command.name));
            return;
        };
        let Some(command) = COMMANDS.iter().find(|command| command.name == *name) else { return };
        literals(command.usage).for_each(&mut *add);
        if command.usage.contains("DISK") || words.last() == Some(&"--disk") {
            machine::disks().iter().for_each(|disk| add(&disk.name));
        }
    }
}

impl Input {
    /// Takes the reading side of both devices.
    ///
    /// # Panics
    /// When somebody has them already: there is one console.
    fn new() -> Self {
        Self {
            serial: CONSOLE.reader().expect("the console is the serial port's one reader"),
            keys: KEYBOARD.keys().expect("the console is the keyboard's one reader"),
            decoder: KeyDecoder::default(),
            editor: LineEditor::new(PROMPT, MAX_LINE),
        }
    }

    /// Asks for a line and reads it, showing what is typed. See [`drivers::line`].
    ///
    /// # Errors
    /// When it was longer than [`MAX_LINE`].
    ///
    /// # Cancellation
    /// What was typed stays, and is where the next line begins.
    pub(super) async fn line(&mut self) -> Result<String, TooLong> {
        output().write(PROMPT).await;
        loop {
            let Some(key) = self.key().await else { continue };
            let mut out = String::new();
            let pressed = self.editor.press(key, &Words, &mut out);
            if !out.is_empty() {
                output().write(&out).await;
            }
            if let Pressed::Line(line) = pressed {
                return line;
            }
        }
    }

    /// The next key, if what is typed next is one. Those of the keyboard that move the screen's view do
    /// so here, others end it.
    ///
    /// # Cancellation
    /// Nothing is lost.
    async fn key(&mut self) -> Option<Key> {
        let key = match self.typed().await {
            // Who types on the serial line looks at another screen.
            Typed::Byte(byte) => return self.decoder.push(byte),
            Typed::Key(key) => Key::try_from(key).ok()?,
        };
        match key {
            Key::PageUp => screen::look_back(1),
            Key::PageDown => screen::look_back(-1),
            _ => screen::look_at_end(),
        }
        Some(key)
    }

    /// Waits for any key but those that move the screen's view. A sequence of bytes that a terminal sends for a key is one.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub(super) async fn any_key(&mut self) {
        loop {
            let key = self.key().await;
            let moves_view = matches!(key, Some(Key::PageUp | Key::PageDown));
            if self.decoder.is_between_keys() && !moves_view {
                return;
            }
        }
    }

    /// The next character; keys that are none, and bytes that are not ASCII, are skipped.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> char {
        loop {
            match self.typed().await {
                Typed::Byte(byte) if byte.is_ascii() => return byte.into(),
                Typed::Key(DecodedKey::Unicode(character)) => return character,
                _ => {}
            }
        }
    }

    async fn typed(&mut self) -> Typed {
        select_biased! {
            byte = self.serial.read_byte().fuse() => Typed::Byte(byte),
            key = self.keys.next().fuse() => Typed::Key(key),
        }
    }
}
