//! Keys, and how serial lines and keyboards tell of them.

use pc_keyboard::{DecodedKey, KeyCode};

/// Something that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "most are named as they are on keyboards")]
pub enum Key {
    /// A printable ASCII character.
    Character(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    PageUp,
    PageDown,
    /// Ctrl-K: what follows goes.
    EraseToEnd,
    /// Ctrl-U: what is before goes.
    EraseToStart,
    /// Ctrl-W: the word before goes.
    EraseWord,
    /// Ctrl-L: the screen is cleared.
    Clear,
}

impl Key {
    fn of_control(byte: u8) -> Option<Self> {
        Some(match byte {
            b'\r' | b'\n' => Self::Enter,
            b'\t' => Self::Tab,
            0x8 => Self::Backspace,
            0x1 => Self::Home,
            0x2 => Self::Left,
            0x4 => Self::Delete,
            0x5 => Self::End,
            0x6 => Self::Right,
            0xb => Self::EraseToEnd,
            0xc => Self::Clear,
            0xe => Self::Down,
            0x10 => Self::Up,
            0x15 => Self::EraseToStart,
            0x17 => Self::EraseWord,
            _ => return None,
        })
    }

    fn of_ascii(byte: u8) -> Option<Self> {
        match byte {
            b' '..=b'~' => Some(Self::Character(byte.into())),
            _ => Self::of_control(byte),
        }
    }
}

impl TryFrom<DecodedKey> for Key {
    type Error = ();

    /// What a keyboard's key means; an error where it means nothing.
    fn try_from(key: DecodedKey) -> Result<Self, ()> {
        let key = match key {
            DecodedKey::Unicode('\u{7f}') => Some(Self::Delete),
            DecodedKey::Unicode(character) => u8::try_from(character).ok().and_then(Self::of_ascii),
            DecodedKey::RawKey(code) => match code {
                KeyCode::ArrowLeft => Some(Self::Left),
                KeyCode::ArrowRight => Some(Self::Right),
                KeyCode::ArrowUp => Some(Self::Up),
                KeyCode::ArrowDown => Some(Self::Down),
                KeyCode::Home => Some(Self::Home),
                KeyCode::End => Some(Self::End),
                KeyCode::PageUp => Some(Self::PageUp),
                KeyCode::PageDown => Some(Self::PageDown),
                KeyCode::Delete => Some(Self::Delete),
                _ => None,
            },
        };
        key.ok_or(())
    }
}

/// Finds keys in the bytes of a terminal.
#[derive(Clone, Debug, Default)]
pub struct KeyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC O: one more byte.
    Single,
    /// After ESC [ [, as the Linux console begins F1 to F5: one more byte.
    Function,
    /// After ESC [, with the first number.
    Sequence(u16),
    /// The same behind the first number, which counts.
    Rest(u16),
}

impl KeyDecoder {
    /// The key that this byte completes. Bytes that are no ASCII are passed over, and so are sequences that mean nothing
    /// here.
    pub fn push(&mut self, byte: u8) -> Option<Key> {
        const ESCAPE: u8 = 0x1b;
        if !byte.is_ascii() {
            return None;
        }
        if byte == ESCAPE {
            self.state = State::Escape;
            return None;
        }
        if byte.is_ascii_control() {
            self.state = State::Ground;
            // What terminals send for the key above Enter.
            return if byte == 0x7f { Some(Key::Backspace) } else { Key::of_control(byte) };
        }
        let (state, key) = match (self.state, byte) {
            (State::Ground, _) => (State::Ground, Key::of_ascii(byte)),
            (State::Escape, b'[') => (State::Sequence(0), None),
            (State::Escape, b'O') => (State::Single, None),
            (State::Escape, _) => (State::Ground, None),
            (State::Single, _) => (State::Ground, final_byte(byte, 0)),
            (State::Function, _) => (State::Ground, None),
            (State::Sequence(0), b'[') => (State::Function, None),
            (State::Sequence(number), b'0'..=b'9') => {
                (State::Sequence(number.saturating_mul(10).saturating_add(u16::from(byte - b'0'))), None)
            }
            (State::Sequence(number) | State::Rest(number), b'@'..=b'~') => {
                (State::Ground, final_byte(byte, number))
            }
            (State::Sequence(number) | State::Rest(number), _) => (State::Rest(number), None),
        };
        self.state = state;
        key
    }

    /// Whether the last byte was the end of a key, of one that means nothing here, too.
    pub fn is_between_keys(&self) -> bool {
        matches!(self.state, State::Ground)
    }
}

fn final_byte(byte: u8, number: u16) -> Option<Key> {
    Some(match (byte, number) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', 1 | 7) => Key::Home,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'~', 3) => Key::Delete,
        (b'~', 5) => Key::PageUp,
        (b'~', 6) => Key::PageDown,
        _ => return None,
    })
}
