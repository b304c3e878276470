//! Hooks that note what they are told.

use std::sync::Mutex;

use executor::{Hooks, TaskRef, WaitReason, current_cpu};

/// What was told, with the names of the tasks. A mutex is enough here, as no handler wakes.
pub(crate) struct Log(Mutex<Vec<(&'static str, String)>>);

pub(crate) static LOG: Log = Log(Mutex::new(Vec::new()));

impl Log {
    fn note(&self, task: &TaskRef, what: impl Into<String>) {
        self.0.lock().unwrap().push((task.name(), what.into()));
    }

    /// What was told about the tasks of this name.
    pub(crate) fn of(&self, name: &str) -> Vec<String> {
        let log = self.0.lock().unwrap();
        log.iter().filter(|(task, _)| *task == name).map(|(_, what)| what.clone()).collect()
    }
}

impl Hooks for Log {
    fn spawned(&self, task: &TaskRef) {
        self.note(task, "spawned");
    }

    fn woken(&self, task: &TaskRef) {
        self.note(task, "woken");
    }

    fn poll_begins(&self, task: &TaskRef) {
        self.note(task, "begins");
    }

    fn poll_ends(&self, task: &TaskRef, _nanos: u64, done: bool) {
        self.note(task, if done { "done" } else { "ends" });
    }

    fn parked(&self, task: &TaskRef, reason: Option<WaitReason>) {
        self.note(task, format!("parked {reason:?}"));
    }

    fn aborted(&self, task: &TaskRef) {
        self.note(task, "aborted");
    }

    fn stolen(&self, task: &TaskRef) {
        self.note(task, format!("stolen {}", task.cpu() != current_cpu()));
    }
}
