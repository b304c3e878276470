//! What tasks use to wait for one another: built on [`WaitQueue`](crate::WaitQueue) or an atomic waker, with the
//! names and behaviour that tokio's users expect.
//!
//! `futures-util`'s combinators work with all of it. A key press, a timer, a mutex and a join raced in one
//! `select_biased!`; whatever loses is dropped, and loses nothing by it:
//! ```
//! use core::pin::pin;
//! use executor::sync::{Mutex, Signal};
//! use executor::time::{Duration, sleep};
//! use executor::{WaitReason, spawn};
//! use futures_util::{FutureExt, select_biased};
//!
//! static KEY: Signal = Signal::new(WaitReason::Keyboard);
//!
//! executor::host::simulate_time();
//! let first = executor::host::block_on(async {
//!     let mutex = Mutex::new(());
//!     let _held = mutex.lock().await;
//!     let task = spawn(sleep(Duration::from_millis(20)));
//!     let mut key = KEY.wait().fuse();
//!     let mut timer = pin!(sleep(Duration::from_millis(10)).fuse());
//!     let mut lock = pin!(mutex.lock().fuse());
//!     let mut join = task.fuse();
//!     select_biased! {
//!         () = key => "key",
//!         () = timer => "timer",
//!         _guard = lock => "mutex",
//!         _output = join => "join",
//!     }
//! });
//! assert_eq!(first, "timer");
//! ```

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
pub use mutex::{Lock, Mutex, MutexGuard, OwnedMutexGuard, TryLockError};
pub use notify::{Notified, Notify};
pub use rw_lock::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{
    Acquire, AcquireError, AcquireOwned, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError,
};
pub use signal::{Signal, SignalWait};
