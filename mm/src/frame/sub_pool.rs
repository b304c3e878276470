//! A part of a pool with a limit of its own.

use core::fmt;
use core::future::Future;
use core::ops::{Deref, DerefMut};

use executor::WaitReason;
use executor::sync::{Semaphore, SemaphorePermit};

use super::{Frame, FramePool, FrameRun, OutOfMemory};

/// At most so many frames of a [`FramePool`] at a time, for one purpose. They are not set aside: the limit is what the
/// others are sure of. For drivers and services that take memory as others ask them to, and are to be denied before they
/// have all of it. Nothing in the kernel takes its frames this way so far: what it has for write-back and swap is set aside
/// at boot.
///
/// Whoever waits at the limit waits for this pool's frames to come back, in a queue of its own. Nobody outside
/// notices, and no victim is named for it.
///
/// A debug build's pool panics when it is dropped while some of its frames are not returned.
pub struct SubPool {
    name: &'static str,
    frames: &'static FramePool,
    limit: usize,
    /// One for each frame that may still be drawn.
    permits: Semaphore,
}

/// Why nothing was drawn from a [`SubPool`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrawError {
    /// The pool's own limit: its frames have to come back first.
    AtLimit,
    /// The machine has no such memory.
    OutOfMemory,
}

impl fmt::Display for DrawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLimit => f.write_str("the pool is at its limit"),
            Self::OutOfMemory => OutOfMemory.fmt(f),
        }
    }
}

impl core::error::Error for DrawError {}

/// A pool that is not whole: see [`SubPool::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotReturned {
    /// The pool's name.
    pub pool: &'static str,
    /// How many of its frames are out.
    pub frames: usize,
}

impl fmt::Display for NotReturned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames of the pool \"{}\" were not returned", self.frames, self.pool)
    }
}

impl core::error::Error for NotReturned {}

impl SubPool {
    /// A pool of at most `limit` frames of `frames`, none of which is taken yet. Needs no heap.
    pub fn new(name: &'static str, frames: &'static FramePool, limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { name, frames, limit, permits: Semaphore::with_reason(limit, WaitReason::Memory) }
    }

    /// Most frames at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Frames that are out now, or just being drawn.
    pub fn in_use(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// Whether all frames were returned.
    ///
    /// # Errors
    /// How many were not.
    pub fn check(&self) -> Result<(), NotReturned> {
        match self.in_use() {
            0 => Ok(()),
            frames => Err(NotReturned { pool: self.name, frames }),
        }
    }

    /// A frame with whatever bytes were in it, at once or not at all.
    ///
    /// # Errors
    /// Which of the two limits was met. Who waits at this pool's limit goes first.
    pub fn try_alloc(&self) -> Result<Drawn<'_>, DrawError> {
        let permit = self.permits.try_acquire().map_err(|_| DrawError::AtLimit)?;
        let piece = self.frames.try_alloc().ok_or(DrawError::OutOfMemory)?;
        Ok(Drawn { piece, _permit: permit })
    }

    /// A run as of [`FramePool::try_alloc_contiguous`].
    ///
    /// # Errors
    /// Which of the two limits was met.
    pub fn try_alloc_contiguous(
        &self,
        frames: usize,
        align_frames: usize,
    ) -> Result<Drawn<'_, FrameRun>, DrawError> {
        if frames > self.limit {
            return Err(DrawError::AtLimit);
        }
        // Not above the limit, so it fits.
        let permit = self.permits.try_acquire_many(frames as u32).map_err(|_| DrawError::AtLimit)?;
        let piece = self.frames.try_alloc_contiguous(frames, align_frames).ok_or(DrawError::OutOfMemory)?;
        Ok(Drawn { piece, _permit: permit })
    }

    /// A frame with whatever bytes were in it. Waits at this pool's limit until one comes back, behind those who asked
    /// before; then as [`FramePool::alloc`] does.
    ///
    /// # Errors
    /// [`OutOfMemory`] as there. A limit of no frames at all is that, too.
    ///
    /// # Cancellation
    /// Dropping the future gives the place in either queue to the next.
    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` is larger")]
    pub fn alloc(&self) -> impl Future<Output = Result<Drawn<'_>, OutOfMemory>> + Send {
        async move {
            if self.limit == 0 {
                return Err(OutOfMemory);
            }
            let permit = self.permits.acquire().await.map_err(|_| OutOfMemory)?;
            let piece = self.frames.alloc().await?;
            Ok(Drawn { piece, _permit: permit })
        }
    }
}

impl Drop for SubPool {
    fn drop(&mut self) {
        if cfg!(debug_assertions)
            && let Err(leak) = self.check()
        {
            panic!("{leak}");
        }
    }
}

impl fmt::Debug for SubPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubPool({:?}, {} of {} frames)", self.name, self.in_use(), self.limit)
    }
}

/// Frames of a [`SubPool`]. Dropping it gives them back to the machine first, and then to the pool's limit.
#[derive(Debug)]
pub struct Drawn<'a, T = Frame> {
    // Dropped in this order.
    piece: T,
    _permit: SemaphorePermit<'a>,
}

impl<T> Drawn<'_, T> {
    /// Takes the frames out of the pool for good: they count as the machine's.
    pub fn into_inner(self) -> T {
        self.piece
    }
}

impl<T> Deref for Drawn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.piece
    }
}

impl<T> DerefMut for Drawn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.piece
    }
}
