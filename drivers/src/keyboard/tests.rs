//! From scancodes to keys, without a controller.

use alloc::string::String;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::*;

fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn type_in(keyboard: &Keyboard, scancodes: &[u8]) {
    for &scancode in scancodes {
        keyboard.record(scancode);
    }
}

const SHIFT: u8 = 0x2a;
const CTRL: u8 = 0x1d;
const A: u8 = 0x1e;
const C: u8 = 0x2e;
const RELEASED: u8 = 0x80;

#[test]
fn keys_come_out_as_characters_in_order() {
    let keyboard = Keyboard::new();
    let mut keys = keyboard.keys().unwrap();
    assert_eq!(poll_once(keys.next()), None);
    type_in(&keyboard, &[A, A | RELEASED, SHIFT, A, A | RELEASED, SHIFT | RELEASED, A]);
    let typed = core::iter::from_fn(|| poll_once(keys.next()));
    let text: String = typed
        .filter_map(|key| if let DecodedKey::Unicode(letter) = key { Some(letter) } else { None })
        .collect();
    assert_eq!(text, "aAa");
}

#[test]
fn control_and_arrow_keys_are_told_apart() {
    let keyboard = Keyboard::new();
    let mut keys = keyboard.keys().unwrap();
    type_in(&keyboard, &[CTRL, C, C | RELEASED, CTRL | RELEASED, 0xe0, 0x48]);
    // The key that is held down is a key of its own.
    assert_eq!(poll_once(keys.next()), Some(DecodedKey::RawKey(KeyCode::LControl)));
    assert_eq!(poll_once(keys.next()), Some(DecodedKey::Unicode('\u{3}')));
    assert_eq!(poll_once(keys.next()), Some(DecodedKey::RawKey(KeyCode::ArrowUp)));
}

#[test]
fn half_a_sequence_is_kept_when_the_reader_is_dropped() {
    let keyboard = Keyboard::new();
    let mut keys = keyboard.keys().unwrap();
    type_in(&keyboard, &[0xe0]);
    assert_eq!(poll_once(keys.next()), None);
    type_in(&keyboard, &[0x48]);
    assert_eq!(poll_once(keys.next()), Some(DecodedKey::RawKey(KeyCode::ArrowUp)));
}

#[test]
fn garbage_does_not_stop_the_stream() {
    let keyboard = Keyboard::new();
    let mut keys = keyboard.keys().unwrap();
    type_in(&keyboard, &[0x00, 0xff, 0xe0, 0xff, 0xe1, 0x01, 0x7f, A | RELEASED, A]);
    let key = core::iter::from_fn(|| poll_once(keys.next())).last();
    assert_eq!(key, Some(DecodedKey::Unicode('a')));
}

#[test]
fn without_a_reader_scancodes_are_dropped_and_counted() {
    let keyboard = Keyboard::new();
    type_in(&keyboard, &[A; SCANCODES + 5]);
    assert_eq!(keyboard.dropped(), 5);
    let mut keys = keyboard.keys().unwrap();
    assert_eq!(core::iter::from_fn(|| poll_once(keys.next())).count(), SCANCODES);
}

#[test]
fn there_is_one_reader_at_a_time() {
    let keyboard = Keyboard::new();
    let keys = keyboard.keys();
    assert!(keys.is_some() && keyboard.keys().is_none());
    drop(keys);
    assert!(keyboard.keys().is_some());
}
