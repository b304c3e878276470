//! Tracks and arrows of Chrome's trace format, made of records.
//!
//! | process | tracks | what is on them |
//! | --- | --- | --- |
//! | CPUs | one a CPU | which thread or task runs; interrupts; what happens to pages there |
//! | threads | one a thread | when it runs, its faults, and how long they park it |
//! | tasks | one a task | its polls, its waits, who wakes it |
//! | devices | one a device | requests, from their submission to their end |
//! | memory | one | waits for all CPUs |
//! | pagers | one an object | what its pager is asked for, until it is done with the last page of it |
//!
//! An arrow leads from each fault, on its thread's track, to the place on a CPU's track where the thread goes on. It is
//! made when that is known, so each has both ends.
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::layout::{Kind, Named, Record};
use pagers::Asked;

mod pagers;

/// Processes of the file.
const CPUS: u64 = 1;
const THREADS: u64 = 2;
const TASKS: u64 = 3;
const DEVICES: u64 = 4;
const MEMORY: u64 = 5;
const PAGERS: u64 = 6;
const PROCESSES: [(u64, &str); 6] = [
    (CPUS, "CPUs"),
    (THREADS, "threads"),
    (TASKS, "tasks"),
    (DEVICES, "devices"),
    (MEMORY, "memory"),
    (PAGERS, "pagers"),
];

/// The bit of an object's number that says that it is private memory.
const PRIVATE: u64 = 1 << 63;

/// What goes on, as far as it has begun and not ended.
#[derive(Default)]
pub struct Tracks {
    names: HashMap<(u8, u64), String>,
    cpus: HashSet<u8>,
    /// Threads that run: since when, and where.
    runs: HashMap<u64, (u64, u8)>,
    faults: HashMap<u64, Fault>,
    /// What each CPU polls, since when.
    polls: HashMap<u8, (u64, u64)>,
    /// Tasks that wait, since when.
    waits: HashMap<u64, u64>,
    /// By device and first page.
    requests: HashMap<(u64, u64), Record>,
    asked: Asked,
    /// By memory and number.
    shootdowns: BTreeMap<(u16, u64), u64>,
    last: u64,
    begun: bool,
}

/// A fault that is not resolved yet.
struct Fault {
    begun: Record,
    parked: Option<u64>,
}

type Add<'a> = &'a mut dyn FnMut(Value);

/// Microseconds, as the format has them.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn slice(pid: u64, tid: u64, name: &str, from: u64, to: u64, args: Value) -> Value {
    let (ts, dur) = (micros(from), micros(to.saturating_sub(from)));
    json!({ "ph": "X", "pid": pid, "tid": tid, "name": name, "ts": ts, "dur": dur, "args": args })
}

fn instant(pid: u64, tid: u64, name: &str, at: u64, args: Value) -> Value {
    json!({ "ph": "i", "s": "t", "pid": pid, "tid": tid, "name": name, "ts": micros(at), "args": args })
}

impl Tracks {
    /// Follows the next record.
    pub fn follow(&mut self, record: &Record, add: Add<'_>) {
        self.begin(record.cpu, add);
        self.last = self.last.max(record.time);
        let (time, cpu, [first, second, third, fourth, _]) = (record.time, record.cpu, record.words);
        let on_cpu = |name: &str, args: Value| instant(CPUS, cpu.into(), name, time, args);
        match record.kind {
            Kind::Name => self.name(record, add),
            Kind::Resume => self.resume(first, time, cpu, add),
            Kind::Leave => self.leave(first, time, add),
            Kind::Trap => {
                self.faults.insert(first, Fault { begun: *record, parked: None });
            }
            Kind::AtOnce => {
                let args = json!({ "address": hex(second), "access": access(record.detail) });
                add(slice(THREADS, first, "fault", third, time, args));
                arrow(record.number, (first, third), (cpu, time), add);
            }
            Kind::Park => {
                if let Some(fault) = self.faults.get_mut(&first) {
                    fault.parked = Some(time);
                }
            }
            Kind::Wake => add(instant(THREADS, first, "wake", time, json!({}))),
            Kind::Map => add(instant(THREADS, first, "resolved", time, json!({}))),
            Kind::End => {
                if let Some(fault) = self.faults.remove(&first) {
                    self.fault(first, &fault, time, add);
                }
                add(instant(THREADS, first, "ended", time, json!({})));
            }
            Kind::Request => {
                self.requests.insert((first, second), *record);
            }
            Kind::Complete => self.complete(record, add),
            Kind::Interrupt => add(on_cpu(&format!("interrupt {}", hex(record.detail.into())), json!({}))),
            Kind::PollBegin => {
                if let Some(since) = self.waits.remove(&first) {
                    add(slice(TASKS, first, "waits", since, time, json!({})));
                }
                self.polls.insert(cpu, (first, time));
            }
            Kind::PollEnd => {
                if let Some((task, since)) = self.polls.remove(&cpu) {
                    self.poll(task, since, time, cpu, add);
                }
            }
            Kind::Waits => {
                self.waits.insert(first, time);
            }
            Kind::Woken => add(instant(TASKS, first, "woken", time, json!({ "by CPU": cpu }))),
            Kind::State => {
                let (from, to) = (self.state(third), self.state(fourth));
                let (event, object) = (self.named(Named::Event, record.detail.into()), object(first));
                let args = json!({ "memory": record.memory, "object": object, "page": second, "event": event,
                    "from": from, "to": to, "words": [hex(third), hex(fourth)] });
                add(on_cpu(&format!("{object} page {second}: {to} ({event})"), args));
            }
            Kind::Asked => self.asked.begin(record),
            Kind::Answered => self.asked.answer(record, &self.names, add),
            Kind::Ended => {
                self.asked.end_object((record.memory, first), time, &self.names, add);
                add(on_cpu(&format!("{} ends", object(first)), json!({})));
            }
            Kind::Enter => {
                let args = json!({ "root": hex(first), "address": hex(second), "frame": hex(third),
                    "writable": record.detail & 1 != 0 });
                add(on_cpu("map", args));
            }
            Kind::ShootdownBegin => {
                self.shootdowns.insert((record.memory, first), time);
            }
            Kind::ShootdownEnd => {
                let still = self.shootdowns.split_off(&(record.memory, first + 1));
                for ((memory, number), since) in std::mem::replace(&mut self.shootdowns, still) {
                    if memory == record.memory {
                        shootdown(memory, number, since, time, add);
                    } else {
                        self.shootdowns.insert((memory, number), since);
                    }
                }
            }
            Kind::Evict => {
                let args = json!({ "memory": record.memory });
                add(on_cpu(&format!("evict {} page {second}", object(first)), args));
            }
        }
    }

    /// Records were lost: what had begun before is not known to go on.
    pub fn lose(&mut self, lost: u64, add: Add<'_>) {
        self.finish(add);
        add(instant(CPUS, 0, &format!("{lost} records lost"), self.last, json!({ "lost": lost })));
    }

    /// Ends what goes on still.
    pub fn end(&mut self, add: Add<'_>) {
        self.finish(add);
    }

    fn finish(&mut self, add: Add<'_>) {
        let last = self.last;
        for thread in self.runs.keys().copied().collect::<Vec<_>>() {
            self.leave(thread, last, add);
        }
        for (cpu, (task, since)) in std::mem::take(&mut self.polls) {
            self.poll(task, since, last, cpu, add);
        }
        for (thread, fault) in std::mem::take(&mut self.faults) {
            self.fault(thread, &fault, last, add);
        }
        for (task, since) in std::mem::take(&mut self.waits) {
            add(slice(TASKS, task, "waits", since, last, json!({})));
        }
        for ((memory, number), since) in std::mem::take(&mut self.shootdowns) {
            shootdown(memory, number, since, last, add);
        }
        for (_, request) in std::mem::take(&mut self.requests) {
            self.request(&request, last, "not ended", add);
        }
        self.asked.end_all(last, &self.names, add);
    }

    fn begin(&mut self, cpu: u8, add: Add<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            for (pid, name) in PROCESSES {
                add(json!({ "ph": "M", "name": "process_name", "pid": pid, "args": { "name": name } }));
                add(
                    json!({ "ph": "M", "name": "process_sort_index", "pid": pid, "args": { "sort_index": pid } }),
                );
            }
        }
        if self.cpus.insert(cpu) {
            add(track_name(CPUS, cpu.into(), &format!("CPU {cpu}")));
        }
    }

    fn name(&mut self, record: &Record, add: Add<'_>) {
        let [mut number, text @ ..] = record.words;
        if record.detail == Named::Pager as u8 {
            number = pagers::track((record.memory, number));
        }
        let bytes: Vec<u8> =
            text.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0).collect();
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let process = match record.detail {
            kind if kind == Named::Thread as u8 => Some(THREADS),
            kind if kind == Named::Task as u8 => Some(TASKS),
            kind if kind == Named::Device as u8 => Some(DEVICES),
            kind if kind == Named::Pager as u8 => Some(PAGERS),
            _ => None,
        };
        if let Some(process) = process {
            let number_of = if process == PAGERS { object(record.words[0]) } else { number.to_string() };
            add(track_name(process, number, &format!("{name} {number_of}")));
        }
        self.names.insert((record.detail, number), name);
    }

    fn named(&self, of: Named, number: u64) -> String {
        self.names.get(&(of as u8, number)).cloned().unwrap_or_else(|| number.to_string())
    }

    /// The name of a page's state, without the bits beside it.
    fn state(&self, word: u64) -> String {
        self.named(Named::State, word & 15)
    }

    fn resume(&mut self, thread: u64, time: u64, cpu: u8, add: Add<'_>) {
        self.runs.insert(thread, (time, cpu));
        if let Some(fault) = self.faults.remove(&thread) {
            self.fault(thread, &fault, time, add);
            arrow(fault.begun.number, (thread, fault.begun.time), (cpu, time), add);
        }
    }

    fn leave(&mut self, thread: u64, time: u64, add: Add<'_>) {
        if let Some((since, cpu)) = self.runs.remove(&thread) {
            let name = self.named(Named::Thread, thread);
            add(slice(
                CPUS,
                cpu.into(),
                &format!("{name} {thread}"),
                since,
                time,
                json!({ "thread": thread }),
            ));
            add(slice(THREADS, thread, "runs", since, time, json!({ "CPU": cpu })));
        }
    }

    fn fault(&self, thread: u64, fault: &Fault, time: u64, add: Add<'_>) {
        let [_, address, ..] = fault.begun.words;
        let args = json!({ "address": hex(address), "access": access(fault.begun.detail) });
        add(slice(THREADS, thread, "fault", fault.begun.time, time, args));
        if let Some(since) = fault.parked {
            add(slice(THREADS, thread, "parked", since, time, json!({})));
        }
    }

    fn poll(&self, task: u64, since: u64, time: u64, cpu: u8, add: Add<'_>) {
        let name = self.named(Named::Task, task);
        add(slice(CPUS, cpu.into(), &name, since, time, json!({ "task": task })));
        add(slice(TASKS, task, "polled", since, time, json!({ "CPU": cpu })));
    }

    fn complete(&mut self, record: &Record, add: Add<'_>) {
        let [device, first, ..] = record.words;
        let how = if record.detail == 0 { "well" } else { "failed" };
        if let Some(request) = self.requests.remove(&(device, first)) {
            self.request(&request, record.time, how, add);
        }
    }

    /// Requests of a device overlap: Perfetto puts those of one name below each other.
    fn request(&self, request: &Record, end: u64, how: &str, add: Add<'_>) {
        let [device, first, pages, ..] = request.words;
        let (name, id) = (self.named(Named::Device, device), format!("r{}", request.number));
        let what = if request.detail == 0 { "load" } else { "store" };
        let args = json!({ "what": what, "first page": first, "pages": pages, "ended": how });
        span(DEVICES, device, &name, &id, request.time, end, args, add);
    }
}

fn shootdown(memory: u16, number: u64, since: u64, end: u64, add: Add<'_>) {
    let id = format!("s{memory}.{number}");
    span(MEMORY, 0, "shootdown", &id, since, end, json!({ "memory": memory, "number": number }), add);
}

#[expect(clippy::too_many_arguments, reason = "a track, a name, two times and what else is known")]
fn span(pid: u64, tid: u64, name: &str, id: &str, from: u64, to: u64, args: Value, add: Add<'_>) {
    let end = |ph: &str, at: u64, args: Value| json!({ "ph": ph, "cat": name, "id": id, "pid": pid, "tid": tid, "name": name, "ts": micros(at), "args": args });
    add(end("b", from, args));
    add(end("e", to, json!({})));
}

/// From a thread's fault to where it goes on.
fn arrow(number: u64, (thread, from): (u64, u64), (cpu, to): (u8, u64), add: Add<'_>) {
    let end = |ph: &str, pid: u64, tid: u64, at: u64| json!({ "ph": ph, "cat": "fault", "name": "fault", "id": number, "pid": pid, "tid": tid, "ts": micros(at), "bp": "e" });
    add(end("s", THREADS, thread, from));
    add(end("f", CPUS, cpu.into(), to));
}

fn track_name(pid: u64, tid: u64, name: &str) -> Value {
    json!({ "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": { "name": name } })
}

fn object(number: u64) -> String {
    match number & PRIVATE {
        0 => format!("object {number}"),
        _ => format!("private {}.{}", (number & !PRIVATE) >> 32, number as u32),
    }
}

fn access(detail: u8) -> String {
    let what = match detail & 3 {
        0 => "read",
        1 => "write",
        _ => "execution",
    };
    format!("{what}{}", if detail & 4 == 0 { "" } else { " in ring 3" })
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

#[cfg(test)]
mod tests;
