//! Many tasks with one owner.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};

use super::{AbortHandle, Builder, JoinError, JoinHandle};
use crate::lock::SpinLock;
use crate::reason::{WaitReason, waits_for};
use crate::sync::AtomicWaker;

/// Which members' futures are gone, in that order, and who waits for that.
struct Ended {
    members: SpinLock<VecDeque<usize>>,
    waker: AtomicWaker,
}

/// Tells the set when the future around it is gone, however it went.
struct Notice {
    ended: Arc<Ended>,
    member: usize,
}

impl Drop for Notice {
    fn drop(&mut self) {
        // There is room: the set reserves a place for each member.
        self.ended.members.lock().push_back(self.member);
        self.ended.waker.wake();
    }
}

/// Owns tasks with the same kind of output, and gives their results in the order in which they end.
///
/// Dropping it aborts all that are left. Threads among them are never aborted, as [`JoinHandle::abort`] says: they
/// go on, and [`shutdown`](JoinSet::shutdown) waits for their end.
pub struct JoinSet<T> {
    members: Vec<Option<JoinHandle<T>>>,
    free: Vec<usize>,
    /// The future of this member is gone, but the task is not done yet (on another CPU).
    ending: Option<usize>,
    ended: Arc<Ended>,
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        JoinSet::new()
    }
}

impl<T> JoinSet<T> {
    /// No tasks.
    pub fn new() -> Self {
        let members = SpinLock::new("join set", VecDeque::new());
        let ended = Arc::new(Ended { members, waker: AtomicWaker::new() });
        JoinSet { members: Vec::new(), free: Vec::new(), ending: None, ended }
    }

    /// How many tasks it owns, done or not.
    pub fn len(&self) -> usize {
        self.members.len() - self.free.len()
    }

    /// Whether it owns none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Aborts all.
    pub fn abort_all(&mut self) {
        self.members.iter().flatten().for_each(JoinHandle::abort);
    }

    /// Lets all go on without an owner.
    pub fn detach_all(&mut self) {
        self.members.clear();
        self.free.clear();
        self.ending = None;
        // What the old members still say is for the old list.
        let members = SpinLock::new("join set", VecDeque::new());
        self.ended = Arc::new(Ended { members, waker: AtomicWaker::new() });
    }

    /// Aborts all and waits until they are gone.
    ///
    /// # Cancellation
    /// Dropping it leaves the aborted tasks in the set.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// Waits for the next task to end ([`WaitReason::Join`]); `None` if there is none.
    ///
    /// # Cancellation
    /// Dropping it loses no result.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        core::future::poll_fn(|context| self.poll_join_next(context)).await
    }

    /// The result of a task that has ended, if there is one.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        match self.poll_join_next(&mut Context::from_waker(core::task::Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => None,
        }
    }

    /// The form of [`join_next`](JoinSet::join_next) for own futures.
    pub fn poll_join_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        if self.is_empty() {
            return Poll::Ready(None);
        }
        if self.ending.is_none() {
            self.ending = self.next_ended();
        }
        if self.ending.is_none() {
            self.ended.waker.register(context.waker());
            self.ending = self.next_ended();
        }
        let Some(member) = self.ending else {
            waits_for(WaitReason::Join);
            return Poll::Pending;
        };
        let Some(handle) = self.members[member].as_mut() else {
            unreachable!("a member ends once");
        };
        let Poll::Ready(result) = Pin::new(handle).poll(context) else { return Poll::Pending };
        self.ending = None;
        self.members[member] = None;
        self.free.push(member);
        Poll::Ready(Some(result))
    }

    fn next_ended(&self) -> Option<usize> {
        self.ended.members.lock().pop_front()
    }
}

impl<T: Send + 'static> JoinSet<T> {
    /// Spawns a task of the set, as [`spawn`](crate::spawn) does.
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.spawn_with(Builder::new(), future)
    }

    /// Spawns a task of the set as the builder says.
    pub fn spawn_with<F>(&mut self, builder: Builder, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        let member = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            // Places to free a member and to note its end are there before they are needed.
            self.free.reserve(self.members.len());
            self.reserve_ends();
            self.members.len() - 1
        });
        let notice = Notice { ended: Arc::clone(&self.ended), member };
        let handle = builder.spawn(async move {
            let _notice = notice;
            future.await
        });
        let abort = handle.abort_handle();
        self.members[member] = Some(handle);
        abort
    }

    /// Makes room in the list of ends for all members. The larger list is allocated outside the lock.
    fn reserve_ends(&self) {
        if self.ended.members.lock().capacity() >= self.members.len() {
            return;
        }
        let mut larger = VecDeque::with_capacity(2 * self.members.len());
        let mut members = self.ended.members.lock();
        larger.extend(members.iter().copied());
        core::mem::swap(&mut *members, &mut larger);
        drop(members);
        drop(larger);
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinSet({} tasks)", self.len())
    }
}
