//! The words of `--log SPEC` and `log SPEC`. The runner reads this file, too: it refuses what the kernel would not
//! understand before anything is built.

use core::{fmt, str::FromStr};

use log::LevelFilter;

/// Modules that can have a level of their own.
pub(crate) const RULES: usize = 8;
/// Bytes of a module's name.
pub(crate) const NAME: usize = 32;

/// Why a text says nothing about levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpecError {
    /// A part is neither a level nor `MODULE=LEVEL`.
    NoLevel,
    /// More than eight modules are named.
    TooMany,
    /// A name is empty, or longer than 32 bytes.
    NoName,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLevel => f.write_str(
                "it is a list like mm=trace,info of LEVEL and MODULE=LEVEL with off, error, warn, info, debug or trace",
            ),
            Self::TooMany => write!(f, "at most {RULES} modules can be named"),
            Self::NoName => write!(f, "a module's name has 1 to {NAME} characters"),
        }
    }
}

/// The parts of a text: a module, if one is named, and its level.
pub(crate) fn parts(spec: &str) -> impl Iterator<Item = Result<(Option<&str>, LevelFilter), SpecError>> {
    spec.split(',').map(|part| {
        let (name, level) = match part.split_once('=') {
            Some((name, level)) => (Some(name.trim()), level),
            None => (None, part),
        };
        if name.is_some_and(|name| name.is_empty() || name.len() > NAME) {
            return Err(SpecError::NoName);
        }
        let level = LevelFilter::from_str(level.trim()).map_err(|_| SpecError::NoLevel)?;
        Ok((name, level))
    })
}

/// How many modules a text names.
///
/// # Errors
/// When it is not understood.
pub(crate) fn check(spec: &str) -> Result<usize, SpecError> {
    let mut named = 0;
    for part in parts(spec) {
        named += usize::from(part?.0.is_some());
    }
    if named > RULES { Err(SpecError::TooMany) } else { Ok(named) }
}
