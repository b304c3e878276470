//! What tasks use to wait for one another: built on [`WaitQueue`](crate::WaitQueue) or an atomic waker, with the
//! names and behaviour that tokio's users expect.

mod atomic_waker;
mod barrier;
pub mod mpsc;
mod mutex;
mod notify;
pub mod oneshot;
mod rw_lock;
mod semaphore;
mod signal;
pub mod watch;

pub use atomic_waker::AtomicWaker;
pub use barrier::{Barrier, BarrierWait, BarrierWaitResult};
pub use mutex::{Lock, Mutex, MutexGuard, TryLockError};
pub use notify::{Notified, Notify};
pub use rw_lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError,
};
pub use signal::{Signal, SignalWait};
