//! A player of text scenarios: one command a line, one line of answer. `docs/vmscript.md` is the language.
//!
//! The player knows no machine. Whoever plays supplies a [`Machine`]: memory, empty page tables, and threads that read,
//! write, and wait. On the host that is the simulator, in the kernel they are kernel threads, so each fault is a real one;
//! the answers are the same.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `line` | from bytes to words, numbers and names |
//! | `command` | from words to commands |
//! | `player` | plays a line, and goes on until nothing more can happen |
//! | `begin`, `files` | what each command begins |
//! | `pager` | the files' contents; completions that wait, fail, or wait for a frame |
//! | `book` | when which page was used and written: exact LRU |
//! | `world` | files, spaces, mappings, threads |
//! | `show` | the answer of `show` |
//!
//! Not for tasks: a player blocks its thread.
#![no_std]

extern crate alloc;

mod answer;
mod begin;
mod book;
mod command;
mod files;
mod line;
mod machine;
mod pager;
mod player;
mod show;
mod world;

pub use answer::Answer;
pub use machine::{Job, Machine, Progress, SPACE, TABLE_FRAMES, Work};
pub use player::Player;
