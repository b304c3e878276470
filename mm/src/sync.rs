//! Stand-ins for the executor's primitives.

use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Poll, Waker};

pub(crate) use executor::WaitReason;
pub(crate) use executor::lock::SpinLock;

pub(crate) struct WaitQueue(spin::Mutex<Vec<Waker>>);

impl WaitQueue {
    pub(crate) const fn new(_reason: WaitReason) -> Self {
        Self(spin::Mutex::new(Vec::new()))
    }
    pub(crate) fn wait_for<T>(&self, mut look: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
        poll_fn(move |context| {
            if let Some(value) = look() {
                return Poll::Ready(value);
            }
            self.0.lock().push(context.waker().clone());
            look().map_or(Poll::Pending, Poll::Ready)
        })
    }
    pub(crate) fn wake_one(&self) -> bool {
        let mut wakers = self.0.lock();
        if wakers.is_empty() {
            return false;
        }
        let waker = wakers.remove(0);
        drop(wakers);
        waker.wake();
        true
    }
    pub(crate) fn wake_all(&self) -> usize {
        let wakers = core::mem::take(&mut *self.0.lock());
        let count = wakers.len();
        wakers.into_iter().for_each(Waker::wake);
        count
    }
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

pub(crate) struct Notify(WaitQueue, AtomicBool);

impl Notify {
    pub(crate) const fn new() -> Self {
        Self(WaitQueue::new(WaitReason::Memory), AtomicBool::new(false))
    }
    pub(crate) fn notify_one(&self) {
        self.1.store(true, Ordering::SeqCst);
        self.0.wake_one();
    }
    pub(crate) async fn notified(&self) {
        self.0.wait_for(|| self.1.swap(false, Ordering::SeqCst).then_some(())).await;
    }
}
