//! `trace`: what happened last, as text.

use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};

use executor::{Class, TaskRef};
use mm::{PageEvent, trace::PageWord};

use super::super::{
    Command, CommandError,
    command::UsageError,
    output::{output, say},
    table::Table,
    units::Time,
};
use crate::{
    heap,
    thread::{self, Thread},
    trace::{self, Kind, Record, layout::Named},
};

/// The most records that are shown.
const MOST: u64 = 500;
/// Tasks whose names are looked up.
const MOST_TASKS: usize = 1000;

pub(super) static TRACE: Command = Command {
    name: "trace",
    usage: "on|off|last N",
    help: "records faults, switches, pages, requests and interrupts, or not; shows the last N of them",
    run: |mut arguments| {
        Box::pin(async move {
            let word = arguments.word();
            match word.as_deref() {
                Some("on") => {
                    arguments.end()?;
                    if !trace::turn_on() {
                        return Err(CommandError::Failed("there is no memory for the records".into()));
                    }
                }
                Some("off") => {
                    arguments.end()?;
                    if !trace::turn_off() {
                        return Err(CommandError::Failed("the runner records: it goes on".into()));
                    }
                }
                Some("last") => {
                    let count = arguments.needed_number("N", 1, MOST)?;
                    arguments.end()?;
                    show(count as usize).await;
                }
                _ => return Err(UsageError("on, off or last N?".into()).into()),
            }
            Ok(0)
        })
    },
};

async fn show(count: usize) {
    let records = trace::last(MOST as usize);
    if records.is_empty() {
        say!("nothing was recorded; 'trace on' records");
        return;
    }
    let names = Names::of(&records);
    let mut table = Table::new(&[">seconds", ">since", ">cpu", "who", "what"]);
    let mut before = None;
    for record in &records[records.len().saturating_sub(count)..] {
        let since = record.time.saturating_sub(before.unwrap_or(record.time));
        before = Some(record.time);
        let (who, what) = words(record, &names);
        let seconds = format_args!("{}.{:06}", record.time / 1_000_000_000, record.time / 1_000 % 1_000_000);
        table.row(&[&seconds, &Time(since), &record.cpu, &who, &what]);
    }
    drop(names);
    output().table(&table).await;
}

/// What threads and tasks are called.
struct Names {
    threads: Vec<Arc<Thread>>,
    tasks: Vec<TaskRef>,
    /// Those that were told, by what has them and its number. Who has ended is known from here only.
    told: Vec<(u8, u64, String)>,
}

impl Names {
    /// Who does not fit into memory has no name.
    fn of(records: &[Record]) -> Self {
        let mut names = Self { threads: Vec::new(), tasks: Vec::new(), told: Vec::new() };
        let mut told = Vec::new();
        let room = heap::has_room().is_ok()
            && names.threads.try_reserve(thread::count()).is_ok()
            && names.tasks.try_reserve(MOST_TASKS).is_ok()
            && told.try_reserve(records.len()).is_ok();
        if room {
            thread::list(&mut names.threads);
            names.tasks.extend(executor::tasks().filter(|task| task.class() == Class::Task).take(MOST_TASKS));
            told.extend(records.iter().filter(|record| record.kind == Kind::Name).map(|record| {
                let [number, name @ ..] = record.words;
                let bytes = name.map(u64::to_le_bytes);
                let name = bytes.as_flattened().iter().take_while(|&&byte| byte != 0);
                (record.detail, number, name.map(|&byte| char::from(byte)).collect())
            }));
            names.told = told;
        }
        names
    }

    fn thread(&self, number: u64) -> String {
        let known = self.threads.iter().find(|thread| thread.id().as_u64() == number);
        self.or_told("thread", Named::Thread, number, known.map(|thread| thread.name()))
    }

    fn task(&self, number: u64) -> String {
        let known = self.tasks.iter().find(|task| u64::from(task.id().number()) == number);
        self.or_told("task", Named::Task, number, known.map(|task| task.name()))
    }

    fn or_told(&self, class: &str, of: Named, number: u64, known: Option<&str>) -> String {
        let told = || {
            self.told.iter().rfind(|told| (told.0, told.1) == (of as u8, number)).map(|told| told.2.as_str())
        };
        known
            .or_else(told)
            .map_or_else(|| format!("{class} {number}"), |name| format!("{class} {number} {name}"))
    }
}

fn device(number: u64) -> String {
    trace::device_name(number).map_or_else(|| format!("device {number}"), String::from)
}

/// Who did something, and what.
fn words(record: &Record, names: &Names) -> (String, String) {
    let [a, b, c, d, _] = record.words;
    let (thread, task) = (|| names.thread(a), || names.task(a));
    let object = || format!("object {a:#x}");
    let access = || match record.detail & 3 {
        0 => "read",
        1 => "write",
        _ => "execution",
    };
    let pages = |store: bool| {
        let (verb, end) = (if store { "store" } else { "load" }, b.saturating_add(c).saturating_sub(1));
        if c == 1 { format!("to {verb} page {b}") } else { format!("to {verb} pages {b} to {end}") }
    };
    match record.kind {
        Kind::Name if record.detail == Named::Thread as u8 => (thread(), String::from("is spawned")),
        Kind::Name if record.detail == Named::Task as u8 => (task(), String::from("is spawned")),
        Kind::Name => (String::new(), String::from("a name is told")),
        Kind::Resume => (thread(), String::from("goes on")),
        Kind::Leave => (thread(), String::from("leaves the CPU")),
        Kind::Trap => (thread(), format!("page fault: {} at {b:#x}", access())),
        Kind::AtOnce => {
            let took = Time(record.time.saturating_sub(c));
            (thread(), format!("page fault: {} at {b:#x}, resolved at once in {took}", access()))
        }
        Kind::Park => (thread(), String::from("is parked")),
        Kind::Wake => (thread(), String::from("is polled again")),
        Kind::Map => (thread(), String::from("its fault is resolved")),
        Kind::End => (thread(), String::from("has ended")),
        Kind::Request => (device(a), format!("is asked {}", pages(record.detail == 1))),
        Kind::Complete => {
            let how = if record.detail == 0 { "completes" } else { "fails" };
            (device(a), format!("{how} the request from page {b}"))
        }
        Kind::Interrupt => (String::from("interrupt"), format!("vector {:#x}", record.detail)),
        Kind::PollBegin => (task(), String::from("is polled")),
        Kind::PollEnd => (task(), String::from("the poll ends")),
        Kind::Waits => (task(), String::from("waits")),
        Kind::Woken => (task(), String::from("is woken")),
        Kind::State => {
            let event = PageEvent::all().nth(record.detail.into());
            let why = event.map_or_else(String::new, |event| format!(" -- {event}"));
            let (from, to) = (PageWord::from_bits(c), PageWord::from_bits(d));
            (object(), format!("page {b}: {from}{why} --> {to}"))
        }
        Kind::Ended => (object(), String::from("has ended")),
        Kind::Enter => (format!("space {a:#x}"), format!("page {b:#x} is entered")),
        Kind::ShootdownBegin => (String::from("memory"), format!("wait {a} for all CPUs begins")),
        Kind::ShootdownEnd => (String::from("memory"), format!("wait {a} for all CPUs is over")),
        Kind::Evict => (object(), format!("page {b} is given back")),
        Kind::Asked => (object(), format!("its pager is asked {}", pages(record.detail == 1))),
        Kind::Answered => (object(), format!("its pager is done with page {b}")),
    }
}
