use alloc::{string::String, vec::Vec};

use pc_keyboard::{DecodedKey, KeyCode};

use super::{Complete, Key, KeyDecoder, LineEditor, Pressed, TooLong, literals};
use crate::screen::Terminal;

struct Words;

impl Complete for Words {
    fn complete(&self, words: &[&str], add: &mut dyn FnMut(&str)) {
        match words {
            [] => ["help", "hash", "trace", "top"].iter().for_each(|word| add(word)),
            ["trace"] => literals("on|off|last N").for_each(add),
            ["hash", ..] => literals("[--threads N] [--disk NAME]").for_each(add),
            _ => {}
        }
    }
}

/// A terminal at which somebody types.
struct Desk {
    editor: LineEditor,
    decoder: KeyDecoder,
    terminal: Terminal,
    lines: Vec<Result<String, TooLong>>,
}

impl Desk {
    fn new() -> Self {
        let mut terminal = Terminal::try_new(60, 8, 0).unwrap();
        terminal.feed(b"> ");
        let editor = LineEditor::new("> ", 40);
        Self { editor, decoder: KeyDecoder::default(), terminal, lines: Vec::new() }
    }

    fn types(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            let Some(key) = self.decoder.push(byte) else { continue };
            let mut out = String::new();
            let pressed = self.editor.press(key, &Words, &mut out);
            self.terminal.feed(out.replace('\n', "\r\n").as_bytes());
            if let Pressed::Line(line) = pressed {
                self.terminal.feed(b"> ");
                self.lines.push(line);
            }
        }
        self
    }

    /// The last line that is shown, which must be what the editor has, with the cursor at its place.
    fn shows(&mut self) -> String {
        let rows = (0..8).map(|row| self.terminal.text(row));
        let (row, shown) = rows.enumerate().rfind(|(_, text)| !text.is_empty()).unwrap();
        let mut cursor = None;
        while self.terminal.changes(1000, |row, column, cell| {
            if cell.background() != crate::screen::Colour::BLACK {
                cursor = Some((row, column));
            }
        }) {}
        if let Some(cursor) = cursor {
            assert_eq!(cursor, (row, 2 + self.editor.cursor), "the cursor stands elsewhere");
        }
        assert_eq!(shown, alloc::format!("> {}", self.editor.line).trim_end());
        self.editor.line.clone()
    }

    fn line(&mut self) -> String {
        self.shows();
        self.types(b"\r").lines.pop().unwrap().unwrap()
    }
}

#[test]
fn what_is_typed_is_the_line_and_what_is_shown() {
    let mut desk = Desk::new();
    assert_eq!(desk.types(b"help me").line(), "help me");
    assert_eq!(desk.types(b"").line(), "");
    assert_eq!(desk.types(b"a\x7fb\x08c").line(), "c");
}

#[test]
fn a_character_at_the_end_is_echoed_as_it_is() {
    let (mut editor, mut out) = (LineEditor::new("> ", 40), String::new());
    for key in [Key::Character('a'), Key::Character('b'), Key::Backspace, Key::Enter] {
        editor.press(key, &Words, &mut out);
    }
    assert_eq!(out, "ab\u{8} \u{8}\n");
}

#[test]
fn the_middle_of_a_line_is_edited() {
    let mut desk = Desk::new();
    assert_eq!(desk.types(b"helo\x1b[Dl").shows(), "hello");
    assert_eq!(desk.types(b"\x01say \x1b[F!").shows(), "say hello!");
    assert_eq!(desk.types(b"\x1b[H\x1b[3~\x1b[3~\x1b[C\x7f").shows(), " hello!");
    assert_eq!(desk.types(b"\x05\x02\x02\x08").shows(), " helo!");
    assert_eq!(desk.line(), " helo!");
}

#[test]
fn parts_of_a_line_are_erased() {
    let mut desk = Desk::new();
    assert_eq!(desk.types(b"one two  three\x17").shows(), "one two  ");
    assert_eq!(desk.types(b"\x17").shows(), "one ");
    assert_eq!(desk.types(b"and more\x1b[D\x1b[D\x1b[D\x1b[D\x0b").shows(), "one and ");
    assert_eq!(desk.types(b"\x02\x02\x15").shows(), "d ");
    assert_eq!(desk.types(b"\x15\x17\x05\x0b").shows(), "d ");
    assert_eq!(desk.line(), "d ");
}

#[test]
fn clearing_the_screen_keeps_the_line() {
    let mut desk = Desk::new();
    desk.types(b"one\rtwo\x02\x0c");
    assert_eq!((desk.shows(), desk.terminal.text(0)), ("two".into(), "> two".into()));
    assert_eq!(desk.types(b"-").line(), "tw-o");
}

#[test]
fn lines_are_remembered() {
    let mut desk = Desk::new();
    desk.types(b"first\rsecond\rsecond\r  \r");
    assert_eq!(desk.types(b"begun\x1b[A").shows(), "second");
    assert_eq!(desk.types(b"\x1bOA").shows(), "first");
    assert_eq!(desk.types(b"\x10").shows(), "first", "there are no older ones");
    assert_eq!(desk.types(b"\x1b[B").shows(), "second");
    assert_eq!(desk.types(b"\x0e").shows(), "begun");
    assert_eq!(desk.types(b"\x1b[B").shows(), "begun", "there are no newer ones");
    assert_eq!(desk.types(b"\x1b[A\x1b[A again").line(), "first again");
    assert_eq!(desk.types(b"\x1b[A").line(), "first again");
}

#[test]
fn only_so_many_lines_are_remembered() {
    let mut desk = Desk::new();
    for number in 0..300 {
        desk.types(alloc::format!("line {number}\r").as_bytes());
    }
    for _ in 0..300 {
        desk.types(b"\x10");
    }
    assert_eq!(desk.line(), "line 200");
}

#[test]
fn words_are_completed() {
    let mut desk = Desk::new();
    assert_eq!(desk.types(b"he\t").shows(), "help ");
    assert_eq!(desk.types(b"; tr\t").shows(), "help ; trace ");
    assert_eq!(desk.types(b"l\t\t").shows(), "help ; trace last ");
    assert_eq!(desk.types(b"\x15hash --d\t").shows(), "hash --disk ");
    assert_eq!(desk.types(b"\x15\x01x\tnothing\t").shows(), "xnothing");
    assert_eq!(desk.types(b"\x15p & to\x02\x02 \x05\t").shows(), "p &  top ");
    assert!(desk.lines.is_empty());
}

#[test]
fn a_word_that_has_several_ends_goes_as_far_as_they_agree() {
    let mut desk = Desk::new();
    assert_eq!(desk.types(b"trace o\t").shows(), "trace o");
    let row = |desk: &Desk, row| desk.terminal.text(row);
    assert_eq!((row(&desk, 0), row(&desk, 1)), ("> trace o".into(), "on  off".into()));
    assert_eq!(desk.types(b"\x15hash -\t").shows(), "hash --");
    assert_eq!(desk.types(b"\x15t !\x02\x02\t").shows(), "t !");
    assert_eq!(row(&desk, 3), "trace  top");
}

#[test]
fn a_line_that_is_too_long_is_refused_whole() {
    let mut desk = Desk::new();
    desk.types(&[b'x'; 41]).types(b"\rshort\r");
    assert_eq!(desk.lines, [Err(TooLong), Ok("short".into())]);
}

#[test]
fn a_completion_for_which_there_is_no_room_is_none() {
    let mut desk = Desk::new();
    desk.types(&[b' '; 37]).types(b"hel\t\r");
    assert_eq!(desk.lines.pop().unwrap().unwrap().trim_start(), "hel");
}

#[test]
fn a_line_that_was_too_long_is_forgotten_when_all_of_it_is_erased_or_another_one_shown() {
    let mut desk = Desk::new();
    desk.types(b"first\r").types(&[b'x'; 41]).types(b"\x15help\r");
    desk.types(&[b'x'; 41]).types(b"\x1b[A\r");
    assert_eq!(desk.lines, ["first", "help", "help"].map(|line| Ok(line.into())));
    // What was lost may stand anywhere in what is left.
    desk.types(&[b'x'; 41]).types(b"\x08\r");
    assert_eq!(desk.lines.pop(), Some(Err(TooLong)));
}

#[test]
fn keys_of_the_linux_console_that_mean_nothing_are_passed_over_whole() {
    let mut desk = Desk::new();
    desk.types(b"a\x1b[[Ab\r");
    assert_eq!(desk.lines, [Ok("ab".into())]);
}

#[test]
fn a_sequence_is_under_way_until_its_last_byte() {
    let mut decoder = KeyDecoder::default();
    let between = b"\x1b[1;5Cx\x1b[[A".map(|byte| {
        decoder.push(byte);
        decoder.is_between_keys()
    });
    let whole: Vec<usize> = (0..between.len()).filter(|&index| between[index]).collect();
    assert_eq!(whole, [5, 6, 10]);
}

#[test]
fn sequences_that_are_broken_off_or_mean_nothing_do_no_harm() {
    let mut desk = Desk::new();
    desk.types(b"a\x1b[\rb\x1b\x1b[1;5Cc\x1b[?9999999zd\xff\xc3\x1bXe\x1b[99~f\x1b[200\x08g\r");
    assert_eq!(desk.lines, [Ok("a".into()), Ok("bcdeg".into())]);
}

#[test]
fn keys_of_a_keyboard_mean_what_they_say() {
    for (key, expected) in [
        (DecodedKey::Unicode('x'), Ok(Key::Character('x'))),
        (DecodedKey::Unicode('\n'), Ok(Key::Enter)),
        (DecodedKey::Unicode('\u{8}'), Ok(Key::Backspace)),
        (DecodedKey::Unicode('\u{7f}'), Ok(Key::Delete)),
        (DecodedKey::Unicode('\u{17}'), Ok(Key::EraseWord)),
        (DecodedKey::RawKey(KeyCode::ArrowUp), Ok(Key::Up)),
        (DecodedKey::RawKey(KeyCode::PageDown), Ok(Key::PageDown)),
        (DecodedKey::Unicode('\u{1b}'), Err(())),
        (DecodedKey::Unicode('ä'), Err(())),
        (DecodedKey::RawKey(KeyCode::F1), Err(())),
    ] {
        assert_eq!(Key::try_from(key), expected);
    }
}

#[test]
fn whatever_is_typed_the_terminal_shows_the_line() {
    let mut desk = Desk::new();
    let mut seed = 7_u32;
    for _ in 0..5000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let parts: [&[u8]; 15] = [
            b"a", b"word ", b"h", b"\t", b"\x08", b"\x1b[D", b"\x1b[C", b"\x01", b"\x05", b"\x17", b"\x0b",
            b"\x1b[A", b"\x1b[B", b"\x04", b"\r",
        ];
        desk.types(parts[(seed >> 16) as usize % parts.len()]);
        desk.shows();
    }
    assert!(desk.lines.len() > 100);
}
