//! `trace`: what happened last, as text.

use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};

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

pub(super) const TRACE: Command = Command {
    name: "trace",
    usage: "on|off|last N",
    help: "records faults, switches, requests and interrupts, or not; shows the last N of them",
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
    let mut threads = Vec::new();
    if heap::has_room().is_ok() && threads.try_reserve(thread::count()).is_ok() {
        thread::list(&mut threads);
    }
    let mut table = Table::new(&[">seconds", ">since", ">cpu", "who", "what"]);
    let mut before = None;
    let names = names(&records);
    for record in &records[records.len().saturating_sub(count)..] {
        let since = record.time.saturating_sub(before.unwrap_or(record.time));
        before = Some(record.time);
        let (who, what) = words(record, &threads, &names);
        let seconds = format_args!("{}.{:06}", record.time / 1_000_000_000, record.time / 1_000 % 1_000_000);
        table.row(&[&seconds, &Time(since), &record.cpu, &who, &what]);
    }
    drop(threads);
    output().table(&table).await;
}

/// The names of threads that were told, by their numbers: those of threads that have ended are known from here only.
fn names(records: &[Record]) -> Vec<(u64, String)> {
    let is_name = |record: &&Record| record.kind == Kind::Name && record.detail == Named::Thread as u8;
    let name = |record: &Record| {
        let [number, name @ ..] = record.words;
        let bytes = name.map(u64::to_le_bytes);
        let name = bytes.as_flattened().iter().take_while(|&&byte| byte != 0);
        (number, name.map(|&byte| char::from(byte)).collect())
    };
    records.iter().filter(is_name).map(name).collect()
}

/// Who did something, and what.
fn words(record: &Record, threads: &[Arc<Thread>], names: &[(u64, String)]) -> (String, String) {
    let [a, b, c, ..] = record.words;
    let thread = || {
        let known = threads.iter().find(|thread| thread.id().as_u64() == a);
        let told = || names.iter().rfind(|(number, _)| *number == a).map(|(_, name)| name.as_str());
        let name = known.map(|known| known.name()).or_else(told);
        name.map_or_else(|| format!("thread {a}"), |name| format!("thread {a} {name}"))
    };
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
        Kind::Request => (format!("device {a}"), format!("is asked {}", pages(record.detail == 1))),
        Kind::Complete => {
            let how = if record.detail == 0 { "completes" } else { "fails" };
            (format!("device {a}"), format!("{how} the request from page {b}"))
        }
        Kind::Interrupt => (String::from("interrupt"), format!("vector {:#x}", record.detail)),
        Kind::PollBegin => (format!("task {a}"), String::from("is polled")),
        Kind::PollEnd => (format!("task {a}"), String::from("the poll ends")),
        Kind::Waits => (format!("task {a}"), String::from("waits")),
        Kind::Woken => (format!("task {a}"), String::from("is woken")),
        Kind::State => (object(), format!("page {b}: its state changes")),
        Kind::Ended => (object(), String::from("has ended")),
        Kind::Enter => (format!("space {a:#x}"), format!("page {b:#x} is entered")),
        Kind::ShootdownBegin => (String::from("memory"), format!("wait {a} for all CPUs begins")),
        Kind::ShootdownEnd => (String::from("memory"), format!("wait {a} for all CPUs is over")),
        Kind::Evict => (object(), format!("page {b} is given back")),
        Kind::Asked => (object(), format!("its pager is asked {}", pages(record.detail == 1))),
        Kind::Answered => (object(), format!("its pager is done with page {b}")),
    }
}
