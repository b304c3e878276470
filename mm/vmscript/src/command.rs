//! Commands, as they stand in a line. That their names exist is looked at when they are played.

use crate::line::{Wrong, below, name, number};

/// Words of a block or page.
pub(crate) const WORDS: u64 = 512;
/// Most pages that a mapping has. Its place has twice as many, so behind it nothing is mapped.
pub(crate) const MOST_PAGES: u64 = 1 << 24;
/// Most blocks of a file.
const MOST_BLOCKS: u64 = 1 << 51;
/// Most frames of a scenario.
const MOST_FRAMES: u64 = 1 << 16;

/// What a line says: a command, perhaps in a space of its own, perhaps on a thread of its own.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) space: Option<&'a str>,
    pub(crate) thread: Option<&'a str>,
    pub(crate) command: Command<'a>,
}

/// What a mapping is to show.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Anonymous,
    File { file: &'a str, first: u64, private: bool },
}

/// One direction of a file's transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Load,
    Store,
}

/// A command about the dirty pages of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteOut {
    Store,
    Mark,
    StoreAndMark,
    Discard,
}

#[derive(Debug)]
pub(crate) enum Command<'a> {
    Ram(usize),
    File { name: &'a str, blocks: u64, overlay: bool },
    Map { name: &'a str, source: Source<'a>, pages: u64 },
    Unmap(&'a str),
    Close(&'a str),
    Read { mapping: &'a str, page: u64, word: u64 },
    Write { mapping: &'a str, page: u64, value: u64, word: u64 },
    Reclaim(u64),
    WriteOut(WriteOut, &'a str),
    Invalidate(&'a str, u64),
    Fork { from: &'a str, to: &'a str },
    Fail { file: &'a str, direction: Direction, block: u64, times: u64 },
    Heal(&'a str),
    Poke { file: &'a str, block: u64, value: u64 },
    Hold(&'a str),
    Release(&'a str, Option<u64>),
    Join(&'a str),
    Kill(&'a str),
    Log(&'a str),
    Show,
    ReadAhead(bool),
}

impl<'a> Line<'a> {
    /// Understands a line of at least one word.
    pub(crate) fn parse(mut words: &[&'a str]) -> Result<Self, Wrong> {
        let (mut space, mut thread) = (None, None);
        // Each at most once, in either order.
        while let [prefix @ ("in" | "go"), of, rest @ ..] = words {
            let place = if *prefix == "in" { &mut space } else { &mut thread };
            if place.replace(name(of)?).is_some() {
                return Err(Wrong);
            }
            words = rest;
        }
        let command = Command::parse(words)?;
        if thread.is_some() && !command.is_for_threads() {
            return Err(Wrong);
        }
        Ok(Self { space, thread, command })
    }
}

impl<'a> Command<'a> {
    fn parse(words: &[&'a str]) -> Result<Self, Wrong> {
        let (&first, rest) = words.split_first().ok_or(Wrong)?;
        Ok(match (first, rest) {
            ("ram", [frames]) => Command::Ram(below(frames, MOST_FRAMES + 1)? as usize),
            ("file", [file, blocks, kind @ ..]) => {
                let overlay = match kind {
                    [] => false,
                    ["overlay"] => true,
                    _ => return Err(Wrong),
                };
                Command::File { name: name(file)?, blocks: from_one(blocks, MOST_BLOCKS)?, overlay }
            }
            ("map", [mapping, "anon", pages]) => {
                let pages = from_one(pages, MOST_PAGES)?;
                Command::Map { name: name(mapping)?, source: Source::Anonymous, pages }
            }
            ("map", [mapping, file, first, pages, kind @ ..]) => {
                let private = match kind {
                    [] => false,
                    ["private"] => true,
                    _ => return Err(Wrong),
                };
                let source = Source::File { file: name(file)?, first: number(first)?, private };
                Command::Map { name: name(mapping)?, source, pages: from_one(pages, MOST_PAGES)? }
            }
            ("unmap", [mapping]) => Command::Unmap(name(mapping)?),
            ("close", [file]) => Command::Close(name(file)?),
            ("read", [mapping, page, word @ ..]) => {
                Command::Read { mapping: name(mapping)?, page: number(page)?, word: word_of(word)? }
            }
            ("write", [mapping, page, value, word @ ..]) => {
                let (page, value) = (number(page)?, number(value)?);
                Command::Write { mapping: name(mapping)?, page, value, word: word_of(word)? }
            }
            ("reclaim", []) => Command::Reclaim(u64::MAX),
            ("reclaim", [most]) => Command::Reclaim(number(most)?),
            ("store", [file]) => Command::WriteOut(WriteOut::Store, name(file)?),
            ("mark", [file]) => Command::WriteOut(WriteOut::Mark, name(file)?),
            ("storemark", [file]) => Command::WriteOut(WriteOut::StoreAndMark, name(file)?),
            ("discard", [file]) => Command::WriteOut(WriteOut::Discard, name(file)?),
            ("invalidate", [file, block]) => Command::Invalidate(name(file)?, number(block)?),
            ("fork", [from, to]) => Command::Fork { from: name(from)?, to: name(to)? },
            ("fail", [file, direction, block, times @ ..]) => {
                let direction = match *direction {
                    "load" => Direction::Load,
                    "store" => Direction::Store,
                    _ => return Err(Wrong),
                };
                let times = match times {
                    [] => u64::MAX,
                    [times] => from_one(times, u64::MAX)?,
                    _ => return Err(Wrong),
                };
                Command::Fail { file: name(file)?, direction, block: number(block)?, times }
            }
            ("heal", [file]) => Command::Heal(name(file)?),
            ("poke", [file, block, value]) => {
                Command::Poke { file: name(file)?, block: number(block)?, value: number(value)? }
            }
            ("hold", [file]) => Command::Hold(name(file)?),
            ("release", [file]) => Command::Release(name(file)?, None),
            ("release", [file, block]) => Command::Release(name(file)?, Some(number(block)?)),
            ("join", [thread]) => Command::Join(name(thread)?),
            ("kill", [thread]) => Command::Kill(name(thread)?),
            ("log", [file]) => Command::Log(name(file)?),
            ("show", []) => Command::Show,
            ("readahead", ["on"]) => Command::ReadAhead(true),
            ("readahead", ["off"]) => Command::ReadAhead(false),
            _ => return Err(Wrong),
        })
    }

    /// Whether a thread of its own may do it: all that answers in a few words and is not about threads.
    fn is_for_threads(&self) -> bool {
        !matches!(
            self,
            Command::Ram(_) | Command::Join(_) | Command::Kill(_) | Command::Log(_) | Command::Show
        )
    }
}

/// A number from 1 to `most`.
fn from_one(word: &str, most: u64) -> Result<u64, Wrong> {
    match number(word)? {
        0 => Err(Wrong),
        number if number > most => Err(Wrong),
        number => Ok(number),
    }
}

/// The word of a page, which may be left out.
fn word_of(words: &[&str]) -> Result<u64, Wrong> {
    match words {
        [] => Ok(0),
        [word] => below(word, WORDS),
        _ => Err(Wrong),
    }
}
