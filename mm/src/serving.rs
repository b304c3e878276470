//! Who works for which request, so that a wait that closes a circle is an error and no wait.
//!
//! A pager may need other pages to make one: a file's page table of blocks, a copy's source. If one of those needs, in
//! the end, the page that is being made, all of them would wait for ever. So a task says which request it works for
//! ([`PageRequest::served_here`], [`StoreRequest::served_here`]), and what it waits for then, the request waits for. The
//! wait that would close a circle is denied with [`PageError::Deadlock`] in the step that begins it; the others of the
//! circle end when its request does.
//!
//! | meets | what resolves it |
//! | --- | --- |
//! | wait, wait, each closing the circle for the other | one comes first, by the lock; the second is denied |
//! | wait, end of what is waited for | who waits no longer waits for anything, whether it has run since or not: a transfer that has ended leads nowhere |
//! | wait that is given up | nothing is left of it |
//! | task that is aborted | its guards are dropped; the requests are the pager's own affair |
//!
//! Only waits for loads and stores of pages are known here, and only of tasks that said what they work for.

use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use executor::TaskId;
use executor::lock::SpinLock;

use crate::fallible::Shared;
use crate::transfer::Transfer;
use crate::{Memory, OutOfMemory, PageError, PageRequest, StoreRequest};

/// The requests that tasks work for.
pub(crate) struct Circles {
    /// How many there are: most machines have none, and then a wait costs a look at this.
    count: AtomicUsize,
    served: SpinLock<Vec<Served>>,
}

/// A request, who works for it, and what that waits for now.
struct Served {
    request: Shared<Transfer>,
    task: TaskId,
    waits_for: Option<Name>,
    /// Whether the wait in question ends no earlier than this request.
    reached: bool,
}

/// A transfer's address: it is borrowed or owned by whoever is noted with it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name(usize);

impl Name {
    fn of(transfer: &Transfer) -> Self {
        Self(core::ptr::from_ref(transfer).addr())
    }
}

impl Served {
    /// Whether a wait for this transfer is a wait for this request.
    fn is(&self, name: Name) -> bool {
        Name::of(&self.request) == name && !self.request.has_ended()
    }
}

impl Circles {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0), served: SpinLock::new("served requests", Vec::new()) }
    }

    fn enter(&self, request: Shared<Transfer>, task: TaskId) -> Result<(), OutOfMemory> {
        let mut served = self.served.lock();
        served.try_reserve(1).map_err(|_| OutOfMemory)?;
        served.push(Served { request, task, waits_for: None, reached: false });
        self.count.store(served.len(), Ordering::Release);
        Ok(())
    }

    fn leave(&self, name: Name, task: TaskId) {
        let left = {
            let mut served = self.served.lock();
            let place = served.iter().position(|one| one.task == task && Name::of(&one.request) == name);
            let left = place.map(|place| served.swap_remove(place));
            self.count.store(served.len(), Ordering::Release);
            left
        };
        drop(left);
    }

    /// A task is about to wait for a transfer. Says whether that is to be noted as over, later.
    ///
    /// # Errors
    /// [`PageError::Deadlock`] if the transfer cannot end before the wait does.
    fn begin_wait(&self, transfer: &Transfer, task: TaskId) -> Result<bool, PageError> {
        let mut served = self.served.lock();
        if !served.iter().any(|one| one.task == task) {
            return Ok(false);
        }
        let target = Name::of(transfer);
        served.iter_mut().for_each(|one| one.reached = one.is(target));
        // Whoever is reached by one that is reached, until there are no more.
        while let Some(next) = next_reached(&served) {
            served[next].reached = true;
        }
        if served.iter().any(|one| one.reached && one.task == task) {
            return Err(PageError::Deadlock);
        }
        served.iter_mut().filter(|one| one.task == task).for_each(|one| one.waits_for = Some(target));
        Ok(true)
    }

    fn end_wait(&self, transfer: &Transfer, task: TaskId) {
        let name = Name::of(transfer);
        let mut served = self.served.lock();
        let waiting = served.iter_mut().filter(|one| one.task == task && one.waits_for == Some(name));
        waiting.for_each(|one| one.waits_for = None);
    }
}

/// A request that is not reached yet, and that one waits for which is.
fn next_reached(served: &[Served]) -> Option<usize> {
    served.iter().position(|one| {
        let waits = |other: &Served| other.reached && other.waits_for.is_some_and(|name| one.is(name));
        !one.reached && served.iter().any(waits)
    })
}

/// A wait for a transfer. Dropping it ends the wait.
pub(crate) struct Waiting<'a> {
    transfer: &'a Transfer,
    /// The task that waits, if it works for a request.
    task: Option<TaskId>,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(transfer: &'a Transfer) -> Self {
        Self { transfer, task: None }
    }

    /// The current task waits for the transfer, which has not ended.
    ///
    /// # Errors
    /// As [`Circles::begin_wait`].
    pub(crate) fn begin(&mut self) -> Result<(), PageError> {
        let circles = &self.transfer.memory().circles;
        if self.task.is_some() || circles.count.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let Some(task) = executor::current_task() else { return Ok(()) };
        if circles.begin_wait(self.transfer, task.id())? {
            self.task = Some(task.id());
        }
        Ok(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.transfer.memory().circles.end_wait(self.transfer, task);
        }
    }
}

/// Says for as long as it lives that a task or thread works for a request; see [`PageRequest::served_here`].
#[must_use = "what it says ends when it is dropped"]
pub struct Serving {
    memory: &'static Memory,
    /// The request, which is noted with the task.
    noted: Option<(Name, TaskId)>,
}

impl Serving {
    fn begin(request: &Shared<Transfer>) -> Result<Self, OutOfMemory> {
        let memory = request.memory();
        let noted = executor::current_task().map(|task| (Name::of(request), task.id()));
        if let Some((_, task)) = noted {
            memory.circles.enter(request.clone(), task)?;
        }
        Ok(Self { memory, noted })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some((name, task)) = self.noted {
            self.memory.circles.leave(name, task);
        }
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serving")
    }
}

impl PageRequest {
    /// Says that the current task, or thread, works for this request as long as the guard lives: for pagers that touch
    /// pages to make a page. A wait of that task for a page that waits for this one in turn then ends at once, with
    /// [`PageError::Deadlock`], where it would never end.
    ///
    /// A task that works for several requests says so for each; then all of them wait for what it waits for. Outside of
    /// tasks nothing is noted. Not from interrupt handlers.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the heap is full.
    pub fn served_here(&self) -> Result<Serving, OutOfMemory> {
        match self.transfer()? {
            Some(load) => Serving::begin(&load),
            None => Ok(Serving { memory: self.memory(), noted: None }),
        }
    }
}

impl StoreRequest {
    /// As [`PageRequest::served_here`].
    ///
    /// # Errors
    /// As there.
    pub fn served_here(&self) -> Result<Serving, OutOfMemory> {
        Serving::begin(self.transfer())
    }
}
