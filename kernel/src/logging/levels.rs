//! Which modules log how much. It stands in atomics: who logs may hold any lock, or be an interrupt handler.
//!
//! | who meets whom | what resolves it |
//! | --- | --- |
//! | a message, a change | the message is judged by what was, by what will be, or by a mix of both: it is shown or not |
//! | a change, another | as above for all messages after them, until the next change |

use core::{
    fmt,
    sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};

use log::LevelFilter;

use super::spec::{NAME, RULES, SpecError, check, parts};

/// A level for all modules, and others for some: `info,mm=trace,kernel::swap=debug`. A module's level is that of the
/// longest name that is its own or that of a module around it.
#[derive(Debug)]
pub(crate) struct Levels {
    /// Of modules that are not named.
    others: AtomicU8,
    count: AtomicUsize,
    rules: [Rule; RULES],
}

#[derive(Debug)]
struct Rule {
    name: [AtomicU8; NAME],
    length: AtomicUsize,
    level: AtomicU8,
}

const ALL: [LevelFilter; 6] = [
    LevelFilter::Off,
    LevelFilter::Error,
    LevelFilter::Warn,
    LevelFilter::Info,
    LevelFilter::Debug,
    LevelFilter::Trace,
];

fn level(number: &AtomicU8) -> LevelFilter {
    ALL[usize::from(number.load(Relaxed)) % ALL.len()]
}

impl Levels {
    /// `info` for all.
    pub(crate) const fn new() -> Self {
        Self {
            others: AtomicU8::new(LevelFilter::Info as u8),
            count: AtomicUsize::new(0),
            rules: [const {
                Rule {
                    name: [const { AtomicU8::new(0) }; NAME],
                    length: AtomicUsize::new(0),
                    level: AtomicU8::new(0),
                }
            }; RULES],
        }
    }

    /// Takes over what `spec` says. Modules that it does not name have the level that stands alone, or `info`.
    ///
    /// # Errors
    /// When it is not understood; then nothing has changed.
    pub(crate) fn set(&self, spec: &str) -> Result<(), SpecError> {
        let named = check(spec)?;
        self.count.store(0, Relaxed);
        self.others.store(LevelFilter::Info as u8, Relaxed);
        let mut rules = self.rules.iter();
        for (name, level) in parts(spec).flatten() {
            let Some(name) = name else {
                self.others.store(level as u8, Relaxed);
                continue;
            };
            let Some(rule) = rules.next() else { break };
            rule.name.iter().zip(name.bytes()).for_each(|(to, byte)| to.store(byte, Relaxed));
            rule.length.store(name.len(), Relaxed);
            rule.level.store(level as u8, Relaxed);
        }
        self.count.store(named, Relaxed);
        Ok(())
    }

    /// How much a module tells. From anywhere.
    pub(crate) fn level_of(&self, module: &str) -> LevelFilter {
        let rules = self.rules.iter().take(self.count.load(Relaxed));
        let fitting = rules.filter(|rule| rule.is_about(module));
        let longest = fitting.max_by_key(|rule| rule.length.load(Relaxed));
        level(longest.map_or(&self.others, |rule| &rule.level))
    }

    /// The most that any module tells.
    pub(crate) fn most(&self) -> LevelFilter {
        let rules = self.rules.iter().take(self.count.load(Relaxed));
        rules.map(|rule| level(&rule.level)).fold(level(&self.others), Ord::max)
    }
}

/// As [`Levels::set`] takes it.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lower(level(&self.others)))?;
        for rule in self.rules.iter().take(self.count.load(Relaxed)) {
            f.write_str(",")?;
            for byte in rule.bytes() {
                write!(f, "{}", char::from(byte))?;
            }
            write!(f, "={}", Lower(level(&rule.level)))?;
        }
        Ok(())
    }
}

struct Lower(LevelFilter);

impl fmt::Display for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().chars().try_for_each(|character| write!(f, "{}", character.to_ascii_lowercase()))
    }
}

impl Rule {
    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.name.iter().take(self.length.load(Relaxed)).map(|byte| byte.load(Relaxed))
    }

    /// Whether a module is the one that is named, or within it.
    fn is_about(&self, module: &str) -> bool {
        let length = self.length.load(Relaxed);
        let Some((own, rest)) = module.as_bytes().split_at_checked(length) else { return false };
        own.iter().copied().eq(self.bytes()) && (rest.is_empty() || rest.starts_with(b"::"))
    }
}
