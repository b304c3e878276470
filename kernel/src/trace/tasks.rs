//! What the executor tells of tasks. Threads tell of themselves when they are entered.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use executor::{Class, Hooks, TaskRef, WaitReason};

use super::{Kind, layout::Named, name, record};

struct Watch;

/// From now on tasks are told of.
pub(super) fn watch() {
    static IS_WATCHED: AtomicBool = AtomicBool::new(false);
    if !IS_WATCHED.swap(true, Relaxed) {
        executor::install_hooks(&Watch);
    }
}

fn tell(kind: Kind, detail: u8, task: &TaskRef) {
    if task.class() == Class::Task {
        record(kind, detail, [task.id().number().into(), 0, 0, 0, 0]);
    }
}

impl Hooks for Watch {
    fn spawned(&self, task: &TaskRef) {
        if task.class() == Class::Task {
            name(Named::Task, task.id().number().into(), task.name());
        }
    }

    fn woken(&self, task: &TaskRef) {
        tell(Kind::Woken, 0, task);
    }

    fn poll_begins(&self, task: &TaskRef) {
        tell(Kind::PollBegin, 0, task);
    }

    fn poll_ends(&self, task: &TaskRef, _: u64, done: bool) {
        tell(Kind::PollEnd, u8::from(done), task);
    }

    fn parked(&self, task: &TaskRef, _: Option<WaitReason>) {
        tell(Kind::Waits, 0, task);
    }
}
