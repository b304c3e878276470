//! Memory that is full, heap and all.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::{WaitReason, lock::SpinLock, sync::Notify, time};
use kernel::{
    block_pager::BlockPager,
    heap::{self, Draw},
    memory::memory,
    thread::{self, SpawnError, block_on},
    window::Window,
};
use mm::{FlushRequest, Frame, MapError, PAGE_SIZE, PageRequest, Pager, Protection, StoreRequest, VmObject};

use crate::{
    check::{Needed, Outcome, ensure, eventually},
    crew::Crew,
    pages,
    stacks::descend,
    usage,
};

/// A piece of the heap that holds the next one, so that the list needs no memory of its own.
struct Piece<const BYTES: usize> {
    next: Option<Box<Self>>,
    _bytes: [u8; BYTES],
}

/// As many pieces as there is room for.
pub(crate) struct Pieces<const BYTES: usize>(Option<Box<Piece<BYTES>>>);

impl<const BYTES: usize> Pieces<BYTES> {
    pub(crate) fn take() -> Self {
        Self::take_until(|| false)
    }

    fn take_until(is_enough: impl Fn() -> bool) -> Self {
        let mut all = Self(None);
        while !is_enough()
            && let Some(mut piece) = heap::try_box(Piece { next: None, _bytes: [0; BYTES] })
        {
            piece.next = all.0.take();
            all.0 = Some(piece);
        }
        all
    }
}

impl<const BYTES: usize> Drop for Pieces<BYTES> {
    /// One after the other: they are too many to be dropped in each other.
    fn drop(&mut self) {
        let mut first = self.0.take();
        while let Some(mut piece) = first {
            first = piece.next.take();
        }
    }
}

/// All memory: no frame is free but those of the reserve, and the heap has no room for anything.
struct Full {
    _frames: Vec<Frame>,
    _pieces: (Pieces<4000>, Pieces<400>, Pieces<40>, Pieces<8>),
}

impl Full {
    fn make() -> Self {
        // The frames first: the heap would keep them.
        let mut frames = Vec::with_capacity(memory().frames().stats().free);
        frames.extend(core::iter::from_fn(|| memory().frames().try_alloc()));
        // The small ones fill what the large ones leave.
        Self { _frames: frames, _pieces: (Pieces::take(), Pieces::take(), Pieces::take(), Pieces::take()) }
    }
}

/// A thread whose stack cannot grow is not ended: it waits, tries again every now and then, and goes on when there is
/// memory.
pub(crate) async fn stack_waits_for_memory() -> Outcome {
    usage::stays_equal(2, |_| async {
        let (go_deep, is_deep) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (deep, noted) = (go_deep.clone(), is_deep.clone());
        let mut crew = Crew::default();
        crew.add("growing", move || {
            block_on(deep.notified());
            descend(30 << 10, &|| noted.store(true, Relaxed));
        })?;
        crew.all_wait_for(WaitReason::Notify).await?;
        let denied = || memory().stats().denied;
        let full = Full::make();
        let frames = memory().frames().stats();
        ensure!(frames.free <= frames.reserve, "a frame is free");
        let before = denied();
        go_deep.notify_one();
        let patient = eventually("it tried five times", || denied() >= before + 5).await;
        let tries = denied();
        time::sleep(Duration::from_millis(500)).await;
        let tries = denied() - tries;
        let went_on = is_deep.load(Relaxed);
        drop(full);
        patient?;
        ensure!(!went_on, "its stack grew without memory");
        // Every 10 ms, and after each wait for memory.
        ensure!((5..=60).contains(&tries), "it tried {tries} times in half a second");
        crew.finish().await?;
        ensure!(is_deep.load(Relaxed), "it did not get down");
        Ok(())
    })
    .await
}

/// A disk's pager that leaves no memory to whoever does what it was asked for.
struct Filling {
    disk: Arc<dyn Pager>,
    full: SpinLock<Option<Full>>,
}

impl Pager for Filling {
    fn name(&self) -> &str {
        "filling"
    }

    fn load(&self, request: PageRequest) {
        self.disk.load(request);
    }

    fn store(&self, request: StoreRequest) {
        self.disk.store(request);
    }

    fn flush(&self, request: FlushRequest) {
        // The task that makes the command of it runs when this has returned.
        self.disk.flush(request);
        let full = Full::make();
        *self.full.lock() = Some(full);
    }
}

/// A flush command is made with the heap full as well.
pub(crate) async fn flush_needs_no_room_in_the_heap() -> Outcome {
    let device = &pages::disk()?.device;
    let disk = BlockPager::start("filled".into(), device.clone(), 0, device.capacity_sectors());
    let pager = Arc::new(Filling { disk, full: SpinLock::new("filling", None) });
    let object = VmObject::new(memory(), pager.clone(), 1);
    object.write(0, &[1]).await.needed("a page is written")?;
    let before = device.stats().requests;
    let flushed = object.flush().await;
    let full = pager.full.lock().take();
    ensure!(full.is_some(), "the heap was not filled");
    drop(full);
    let commands = device.stats().requests - before;
    ensure!(flushed.is_ok() && commands == 2, "{flushed:?} after {commands} requests of the device");
    Ok(())
}

/// With a full heap a thread's stack has the reserve: it takes no more than the frames of its pages. All that others ask
/// for is refused.
pub(crate) async fn heap_reserve_is_kept_for_stacks() -> Outcome {
    let ran = Arc::new(AtomicUsize::new(0));
    let add = |crew: &mut Crew| {
        let ran = ran.clone();
        crew.add("first page", move || ran.store(ran.load(Relaxed) + 1, Relaxed))
    };
    // The tables of its stack are there before.
    let mut crew = Crew::default();
    add(&mut crew)?;
    crew.finish().await?;
    usage::still().await?;
    let object = VmObject::zero(memory(), 1);
    let spare = memory().frames().try_alloc().needed("a frame")?;
    let mut crew = Crew::default();
    // It does not begin before the heap is full.
    add(&mut crew)?;
    let full = Full::make();
    let refused = (
        heap::try_box([0_u64; 8]).is_none(),
        thread::spawn("never", || {}).err() == Some(SpawnError::NoMemory),
        Window::map(object.clone(), PAGE_SIZE, Protection::READ).err() == Some(MapError::NoMemory),
        VmObject::try_zero(memory(), 1).is_err(),
    );
    let reserve = heap::with_reserve(|| heap::try_box([0_u64; 8]));
    let is_reserved = reserve.is_some();
    drop(reserve);
    // It is promised to the thread, which waits for it.
    eventually("the thread waits for memory", || memory().frames().stats().waiting > 0).await?;
    drop(spare);
    let began = eventually("the thread has its first page", || ran.load(Relaxed) == 2).await;
    drop(full);
    ensure!(refused == (true, true, true, true), "with a full heap these were refused: {refused:?}");
    ensure!(is_reserved, "there is no reserve");
    began?;
    crew.finish().await
}

/// With a full heap and no free frame, half of the reserve is not for stacks and loads; who writes pages out takes
/// that, and then frames that are kept for it.
pub(crate) async fn half_of_the_heap_reserve_is_for_writing_pages_out() -> Outcome {
    const HALF: usize = 32 << 10;
    let used = || heap::stats().used;
    let full = Full::make();
    let (free, before) = (memory().frames().stats().free, used());
    let others = heap::drawing(Draw::Half, Pieces::<1000>::take);
    let (of_others, left) = (used() - before, memory().frames().stats().free);
    let is_enough = || used() - before > 3 * HALF;
    let writer = heap::drawing(Draw::All, || Pieces::<1000>::take_until(is_enough));
    let kept = memory().frames().stats().free;
    let has_enough = is_enough();
    drop((others, writer, full));
    ensure!((HALF / 2..=HALF).contains(&of_others), "others have {of_others} bytes of the reserve");
    ensure!(left == free, "others have {} frames that are kept", free - left);
    ensure!(has_enough && kept < left, "who writes pages out has no more than the reserve");
    Ok(())
}
