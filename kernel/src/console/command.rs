//! Lines and the commands that they name.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{fmt, future::Future, pin::Pin};

use executor::Builder;

use super::{commands::COMMANDS, output::say};

/// A command under way; its output is the status, 0 for success.
pub type CommandFuture = Pin<Box<dyn Future<Output = Result<u8, CommandError>> + Send>>;

/// Something that can be typed.
pub struct Command {
    /// The word that names it.
    pub name: &'static str,
    /// Its arguments, as `help` shows them.
    pub usage: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// Runs it.
    pub run: fn(Arguments) -> CommandFuture,
}

/// The line did not say what the command understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a command did not do what it should. Shown as `error: ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// It was not understood: status 2, as shells have it.
    Usage(UsageError),
    /// It was, and could not be done, for the reason in this clause: status 1.
    Failed(String),
}

impl From<UsageError> for CommandError {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

const STATUS_FAILED: u8 = 1;
const STATUS_USAGE: u8 = 2;
/// The status of a line that names no command, as shells have it.
const STATUS_UNKNOWN: u8 = 127;
/// How much of a word that was not understood is shown.
const MAX_SHOWN: usize = 40;

/// The words after a command's name.
#[derive(Clone, Debug)]
pub struct Arguments {
    words: Vec<String>,
    is_behind: bool,
}

impl Arguments {
    /// Whether the command runs behind its line, which goes on: what is typed is not for it.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Takes `--name VALUE` out; `None` when it is not there.
    ///
    /// # Errors
    /// When the value is missing.
    pub fn text_option(&mut self, name: &str) -> Result<Option<String>, UsageError> {
        let Some(at) = self.words.iter().position(|word| word == name) else { return Ok(None) };
        self.words.remove(at);
        if at == self.words.len() {
            return Err(UsageError(alloc::format!("{name} needs a value")));
        }
        Ok(Some(self.words.remove(at)))
    }

    /// Takes `--name VALUE` out, a number; `None` when it is not there.
    ///
    /// # Errors
    /// When the value is missing or is not a number from `min` to `max`.
    pub fn option(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>, UsageError> {
        self.text_option(name)?.map(|word| number(name, &word, min, max)).transpose()
    }

    /// Takes the next word as a number; `None` when there is none.
    ///
    /// # Errors
    /// When it is not a number from `min` to `max`.
    pub fn number(&mut self, what: &str, min: u64, max: u64) -> Result<Option<u64>, UsageError> {
        self.word().map(|word| number(what, &word, min, max)).transpose()
    }

    /// Takes the next word as a number.
    ///
    /// # Errors
    /// When there is none, or it is not a number from `min` to `max`.
    pub fn needed_number(&mut self, what: &str, min: u64, max: u64) -> Result<u64, UsageError> {
        self.number(what, min, max)?.ok_or_else(|| UsageError(alloc::format!("{what} is missing")))
    }

    /// Takes the next word.
    pub fn word(&mut self) -> Option<String> {
        (!self.words.is_empty()).then(|| self.words.remove(0))
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// Names the first word that is.
    pub fn end(self) -> Result<(), UsageError> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(UsageError(alloc::format!("what is '{}'?", shown(word)))),
        }
    }
}

fn number(what: &str, word: &str, min: u64, max: u64) -> Result<u64, UsageError> {
    match word.parse() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(UsageError(alloc::format!("{what} is a number from {min} to {max}, not '{}'", shown(word)))),
    }
}

/// The beginning of a word that somebody typed, fit to be printed.
fn shown(word: &str) -> String {
    word.chars().take(MAX_SHOWN).flat_map(char::escape_default).collect()
}

/// Runs the commands that `line` names, with `;` between them. All are run, also after one that failed; the
/// status is that of the first that failed, or 0. An empty command is a success, and so is one with `&`
/// after it: the line does not wait for that.
///
/// # Cancellation
/// What a command has begun stays as it is: threads that it started go on.
pub async fn execute(line: &str) -> u8 {
    let mut first_failure = 0;
    for command in line.split_inclusive([';', '&']) {
        let status = match command.strip_suffix('&') {
            None => execute_one(command.trim_end_matches(';'), false).await,
            Some(command) => execute_behind(String::from(command)),
        };
        if first_failure == 0 {
            first_failure = status;
        }
    }
    first_failure
}

/// Runs a command in a task of its own.
fn execute_behind(command: String) -> u8 {
    if command.trim().is_empty() {
        return 0;
    }
    let started = Builder::new().name("command").try_spawn(async move { execute_one(&command, true).await });
    match started {
        Ok(_detached) => 0,
        Err(_no_memory) => STATUS_FAILED,
    }
}

async fn execute_one(line: &str, is_behind: bool) -> u8 {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return 0 };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        say!("error: there is no command '{}'; 'help' lists them", shown(name));
        return STATUS_UNKNOWN;
    };
    let arguments = Arguments { words: words.map(String::from).collect(), is_behind };
    match (command.run)(arguments).await {
        Ok(status) => status,
        Err(CommandError::Failed(why)) => {
            say!("error: {why}");
            STATUS_FAILED
        }
        Err(CommandError::Usage(error)) => {
            let Command { name, usage, .. } = command;
            let form = alloc::format!("{name} {usage}");
            say!("error: {error}\nusage: {}", form.trim_end());
            STATUS_USAGE
        }
    }
}
