//! Lines as they are typed: keys in, edits of the terminal out.
//!
//! ```text
//! bytes of a serial line -> KeyDecoder -> Key -> LineEditor -> what to write to the terminal, and lines
//! keys of a keyboard     ---------------^
//! ```
//!
//! Nothing here waits, and nothing depends on time: an escape sequence is over when its last byte comes, and a control
//! character ends one that was broken off. Lines are of printable ASCII characters.

mod editor;
mod key;
#[cfg(test)]
mod tests;

pub use editor::{Complete, LineEditor, Pressed, TooLong};
pub use key::{Key, KeyDecoder};

/// The words of a command's usage that stand for themselves, such as `--disk`, `on` and `off` in `[--disk NAME] on|off`.
/// Others, in capitals, stand for something else.
pub fn literals(usage: &str) -> impl Iterator<Item = &str> {
    let words = usage.split(|character: char| character.is_whitespace() || "[]|".contains(character));
    words.filter(|word| {
        let first = word.trim_start_matches('-').bytes().next();
        first.is_some_and(|byte| byte.is_ascii_lowercase())
    })
}
