//! The keyboard controller (i8042): its set-up and its status.
//!
//! The keyboard sends scancode set 2; the controller translates to set 1, which is what firmware leaves
//! behind and what the stream decodes. Nothing of that is taken for granted here.

use crate::port::{I8042_COMMAND, I8042_DATA};

/// Status: a byte waits in the data port.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the controller has not yet taken the last byte written.
const INPUT_FULL: u8 = 1 << 1;
/// Status: the byte that waits is the mouse's.
const FROM_MOUSE: u8 = 1 << 5;
/// What a port without a device reads as.
const NOTHING: u8 = 0xff;

/// Commands to the controller.
const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;

/// Bits of the controller's configuration.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_CLOCK_OFF: u8 = 1 << 4;
const TRANSLATE: u8 = 1 << 6;

/// Commands to the keyboard, and its answer.
const SELECT_SCANCODE_SET: u8 = 0xf0;
const START_SCANNING: u8 = 0xf4;
const ACKNOWLEDGED: u8 = 0xfa;

/// Looks at the status before the controller counts as stuck: some 50 ms.
const PATIENCE: u32 = 50_000;
/// More bytes than controller and keyboard can hold together.
const MOST_BUFFERED: u32 = 64;

/// See [`Keyboard::init`](super::Keyboard::init).
pub(super) fn set_up() -> bool {
    if I8042_COMMAND.read() == NOTHING {
        return false;
    }
    command(DISABLE_KEYBOARD) && command(DISABLE_MOUSE) && {
        flush();
        configure() && command(ENABLE_KEYBOARD) && start_keyboard()
    }
}

fn configure() -> bool {
    if !command(READ_CONFIGURATION) {
        return false;
    }
    let Some(configuration) = answer() else { return false };
    let on = KEYBOARD_INTERRUPT | TRANSLATE;
    let off = MOUSE_INTERRUPT | KEYBOARD_CLOCK_OFF;
    command(WRITE_CONFIGURATION) && send(configuration & !off | on)
}

fn start_keyboard() -> bool {
    let acknowledged = |byte| {
        // A key pressed at this moment may come before the answer.
        send(byte) && (0..MOST_BUFFERED).map_while(|_| answer()).any(|answer| answer == ACKNOWLEDGED)
    };
    acknowledged(SELECT_SCANCODE_SET) && acknowledged(2) && acknowledged(START_SCANNING)
}

/// The next byte from the keyboard, if one waits; the mouse's are thrown away. Interrupt-safe.
pub(super) fn read_keyboard() -> Option<u8> {
    for _ in 0..MOST_BUFFERED {
        let status = I8042_COMMAND.read();
        if status == NOTHING || status & OUTPUT_FULL == 0 {
            return None;
        }
        let byte = I8042_DATA.read();
        if status & FROM_MOUSE == 0 {
            return Some(byte);
        }
    }
    None
}

fn flush() {
    for _ in 0..MOST_BUFFERED {
        if I8042_COMMAND.read() & OUTPUT_FULL == 0 {
            break;
        }
        I8042_DATA.read();
    }
}

fn command(command: u8) -> bool {
    let taken = wait_until(|status| status & INPUT_FULL == 0);
    if taken {
        I8042_COMMAND.write(command);
    }
    taken
}

fn send(byte: u8) -> bool {
    let taken = wait_until(|status| status & INPUT_FULL == 0);
    if taken {
        I8042_DATA.write(byte);
    }
    taken
}

fn answer() -> Option<u8> {
    wait_until(|status| status & OUTPUT_FULL != 0).then(|| I8042_DATA.read())
}

fn wait_until(condition: impl Fn(u8) -> bool) -> bool {
    (0..PATIENCE).any(|_| condition(I8042_COMMAND.read()))
}
