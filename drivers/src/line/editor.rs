//! The line under the cursor, and those that were typed before.
//!
//! What is written to the terminal are characters, backspaces and three sequences that every terminal knows: to erase what
//! follows, to erase all, and to go to the first place. Where a line is longer than the terminal is wide, backspaces stop
//! at the edge: its end is edited as well as ever, its middle is shown right after Ctrl-L.

use alloc::{
    collections::VecDeque,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::Range;

use super::Key;

/// Lines that are remembered.
const REMEMBERED: usize = 100;
/// Completions that are shown when there are several.
const SHOWN: usize = 64;
/// Erases what is behind the cursor.
const ERASE_REST: &str = "\x1b[J";
/// Erases all and goes to the first place.
const ERASE_ALL: &str = "\x1b[2J\x1b[H";

/// Knows what words a line may have.
pub trait Complete {
    /// Calls `add` with each word that may follow these; whether it begins as it should is looked at there.
    fn complete(&self, words: &[&str], add: &mut dyn FnMut(&str));
}

/// What a key has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// The line goes on.
    More,
    /// This line is complete.
    Line(Result<String, TooLong>),
}

/// More was typed than a line has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Edits lines.
#[derive(Debug)]
pub struct LineEditor {
    prompt: &'static str,
    /// The most bytes of a line.
    most: usize,
    pub(super) line: String,
    /// A place in the line, in bytes, which are characters.
    pub(super) cursor: usize,
    /// Something was typed for which there was no room, since the line was empty.
    too_long: bool,
    /// The newest is the last.
    remembered: VecDeque<String>,
    /// How many lines back the one is that is shown, and the line that was typed.
    back: usize,
    typed: String,
}

impl LineEditor {
    /// Lines of at most so many bytes, behind this prompt.
    pub const fn new(prompt: &'static str, most: usize) -> Self {
        Self {
            prompt,
            most,
            line: String::new(),
            cursor: 0,
            too_long: false,
            remembered: VecDeque::new(),
            back: 0,
            typed: String::new(),
        }
    }

    /// Does what a key says, and adds to `out` what the terminal has to be sent. Lines end with a line feed there.
    pub fn press(&mut self, key: Key, words: &impl Complete, out: &mut String) -> Pressed {
        match key {
            Key::Character(character) if character.is_ascii() && !character.is_ascii_control() => {
                self.insert(character.encode_utf8(&mut [0; 4]), out);
            }
            Key::Enter => return Pressed::Line(self.enter(out)),
            Key::Tab => self.complete(words, out),
            Key::Backspace => self.erase(self.cursor.saturating_sub(1)..self.cursor, out),
            Key::Delete => self.erase(self.cursor..(self.cursor + 1).min(self.line.len()), out),
            Key::EraseToEnd => self.erase(self.cursor..self.line.len(), out),
            Key::EraseToStart => self.erase(0..self.cursor, out),
            Key::EraseWord => self.erase(self.word_start()..self.cursor, out),
            Key::Left => self.go(self.cursor.saturating_sub(1), out),
            Key::Right => self.go(self.cursor + 1, out),
            Key::Home => self.go(0, out),
            Key::End => self.go(self.line.len(), out),
            Key::Up => self.recall(self.back + 1, out),
            Key::Down => self.recall(self.back.wrapping_sub(1), out),
            Key::Clear => {
                out.push_str(ERASE_ALL);
                self.show(out);
            }
            Key::Character(_) | Key::PageUp | Key::PageDown => {}
        }
        Pressed::More
    }

    fn enter(&mut self, out: &mut String) -> Result<String, TooLong> {
        self.go(self.line.len(), out);
        out.push('\n');
        let line = core::mem::take(&mut self.line);
        (self.cursor, self.back) = (0, 0);
        if core::mem::take(&mut self.too_long) {
            return Err(TooLong);
        }
        if !line.trim().is_empty() && self.remembered.back() != Some(&line) {
            if self.remembered.len() == REMEMBERED {
                self.remembered.pop_front();
            }
            self.remembered.push_back(line.clone());
        }
        Ok(line)
    }

    fn insert(&mut self, text: &str, out: &mut String) {
        if self.line.len() + text.len() > self.most {
            self.too_long = true;
            return;
        }
        self.line.insert_str(self.cursor, text);
        out.push_str(&self.line[self.cursor..]);
        self.cursor += text.len();
        back(self.line.len() - self.cursor, out);
    }

    fn erase(&mut self, part: Range<usize>, out: &mut String) {
        if part.is_empty() {
            return;
        }
        let (was_at, length) = (self.cursor, part.len());
        back(was_at - part.start, out);
        self.cursor = part.start;
        self.line.replace_range(part, "");
        if self.line.is_empty() {
            self.too_long = false;
        }
        let rest = &self.line[self.cursor..];
        out.push_str(rest);
        if length == 1 {
            // As plain terminals do it.
            out.push_str(" \u{8}");
        } else {
            out.push_str(ERASE_REST);
        }
        back(rest.len(), out);
    }

    fn go(&mut self, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        match self.line.get(self.cursor..to) {
            Some(passed) => out.push_str(passed),
            None => back(self.cursor - to, out),
        }
        self.cursor = to;
    }

    /// Where the word before the cursor begins.
    fn word_start(&self) -> usize {
        let before = self.line[..self.cursor].trim_end_matches(' ');
        before.rfind(' ').map_or(0, |space| space + 1)
    }

    /// Shows the line that is so many lines back, or what was typed.
    fn recall(&mut self, lines: usize, out: &mut String) {
        if lines > self.remembered.len() {
            return;
        }
        if self.back == 0 {
            self.typed.clone_from(&self.line);
        }
        self.back = lines;
        let line = match lines {
            0 => core::mem::take(&mut self.typed),
            lines => self.remembered[self.remembered.len() - lines].clone(),
        };
        self.go(0, out);
        self.cursor = line.len();
        self.line = line;
        self.too_long = false;
        out.push_str(&self.line);
        out.push_str(ERASE_REST);
    }

    /// The prompt and the line, as they are.
    fn show(&self, out: &mut String) {
        out.push_str(self.prompt);
        out.push_str(&self.line);
        back(self.line.len() - self.cursor, out);
    }

    fn complete(&mut self, words: &impl Complete, out: &mut String) {
        let line = self.line[..self.cursor].to_string();
        let command = line.rsplit([';', '&']).next().unwrap_or_default();
        let mut before: Vec<&str> = command.split(' ').collect();
        let begun = before.pop().unwrap_or_default();
        before.retain(|word| !word.is_empty());
        let mut found: Vec<String> = Vec::new();
        words.complete(&before, &mut |word| {
            if word.starts_with(begun) && found.len() < SHOWN && !found.iter().any(|other| other == word) {
                found.push(word.to_string());
            }
        });
        let Some(first) = found.first() else { return };
        let common = found.iter().fold(first.len(), |length, word| {
            length.min(first.bytes().zip(word.bytes()).take_while(|(a, b)| a == b).count())
        });
        let mut more = first[begun.len()..common].to_string();
        if found.len() == 1 {
            more.push(' ');
        }
        if more.is_empty() {
            let rest = self.line.len() - self.cursor;
            out.push_str(&self.line[self.line.len() - rest..]);
            out.push('\n');
            out.push_str(&found.join("  "));
            out.push('\n');
            self.show(out);
        } else if self.line.len() + more.len() <= self.most {
            self.insert(&more, out);
        }
    }
}

/// Moves the terminal's cursor back.
fn back(characters: usize, out: &mut String) {
    out.extend(core::iter::repeat_n('\u{8}', characters));
}
