//! Hooks that are installed when there are tasks already: they have a program of their own, as hooks are installed once.
#![cfg(not(loom))]

use std::sync::Mutex;

use executor::host::{block_on, run_until_idle};
use executor::sync::oneshot;
use executor::{Builder, Class, Hooks, TaskRef, install_hooks};

/// What was told, with the names of the tasks.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl Log {
    fn note(&self, task: &TaskRef, what: &str) {
        self.0.lock().unwrap().push(format!("{} {what}", task.name()));
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
}

#[test]
fn tasks_that_were_there_before_the_hooks_are_told_of_from_then_on() {
    let (go, gone) = oneshot::channel::<()>();
    let (go_too, gone_too) = oneshot::channel::<()>();
    let task = Builder::new().name("task").spawn(async move { gone.await.is_ok() });
    let thread =
        Builder::new().name("thread").class(Class::Thread).spawn(async move { gone_too.await.is_ok() });
    run_until_idle();
    install_hooks(&LOG);
    assert_eq!(LOG.0.lock().unwrap().len(), 0);
    go.send(()).unwrap();
    assert_eq!(block_on(task), Ok(true));
    go_too.send(()).unwrap();
    assert_eq!(block_on(thread), Ok(true));
    let told = LOG.0.lock().unwrap();
    assert_eq!(
        *told,
        ["task woken", "task begins", "task done", "thread woken", "thread begins", "thread done"]
    );
}
