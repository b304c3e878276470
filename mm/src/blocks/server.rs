//! Servers: each works on one block at a time.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::queue::{Next, Queue, Wanted};
use super::transfer::{Back, End, Work};
use super::{BlockStore, BlockTransfer, Serves};
use crate::fallible::Shared;
use crate::{Memory, OutOfMemory, PAGE_SIZE};

pub(super) struct Server {
    memory: &'static Memory,
    store: Arc<dyn BlockStore>,
    queue: Shared<Queue>,
    serves: Serves,
    back: Shared<Back>,
    /// Not there while a transfer has it.
    work: Option<Work>,
}

impl Server {
    pub(super) fn try_new(
        memory: &'static Memory,
        store: Arc<dyn BlockStore>,
        queue: Shared<Queue>,
        pages: usize,
        serves: Serves,
    ) -> Result<Self, OutOfMemory> {
        let (mut places, mut own) = (Vec::new(), Vec::new());
        places.try_reserve_exact(pages).map_err(|_| OutOfMemory)?;
        places.resize_with(pages, || None);
        own.try_reserve_exact(pages).map_err(|_| OutOfMemory)?;
        for _ in 0..pages {
            own.push(memory.frames().try_alloc().ok_or(OutOfMemory)?);
        }
        let back = Shared::try_new(Back::new())?;
        queue.add_server()?;
        Ok(Self { memory, store, queue, serves, back, work: Some(Work { places, own, claim: None }) })
    }

    pub(super) async fn serve(mut self) {
        let mut spare = None;
        let mut from = 0;
        while let Some(mut work) = self.work.take() {
            let (queue, serves) = (&self.queue, self.serves);
            let look = || Queue::next(queue, serves, from, &mut work.places, &mut spare);
            match queue.wait_for(look).await {
                Next::Closed => return,
                Next::Nothing => work.places.fill_with(|| None),
                Next::NeedsFrame => {
                    work.places.fill_with(|| None);
                    // With no block claimed: it may be a store of the same one that frees a frame.
                    match self.memory.frames().alloc().await {
                        Ok(frame) => spare = Some(frame),
                        Err(OutOfMemory) => self.queue.refuse_load(from),
                    }
                }
                Next::Block(claim) => {
                    from = claim.block + 1;
                    spare = None;
                    work.claim = Some(claim);
                    let without_frame = |wanted: &mut Wanted| wanted.frame_address().is_none();
                    work.places.iter_mut().for_each(|place| drop(place.take_if(without_frame)));
                    work = self.work_on(work).await;
                    work.claim = None;
                }
            }
            self.work = Some(work);
        }
    }

    /// Reads or writes a block, and ends what was wanted of it.
    async fn work_on(&self, work: Work) -> Work {
        let (mut work, end) = match self.serves {
            Serves::Loads => self.transfer(work, false).await,
            Serves::Stores if work.places.iter().all(Option::is_some) => self.transfer(work, true).await,
            Serves::Stores => {
                let (work, end) = self.transfer(work, false).await;
                if end.bytes < work.own.len() * PAGE_SIZE {
                    (work, End { bytes: 0, rest: end.rest })
                } else {
                    self.transfer(work, true).await
                }
            }
        };
        for (place, wanted) in work.places.iter_mut().enumerate() {
            let is_done = end.bytes / PAGE_SIZE > place;
            if let Some(wanted) = wanted.take() {
                wanted.complete(if is_done { Ok(()) } else { Err(end.rest) });
            }
        }
        work
    }

    async fn transfer(&self, work: Work, write: bool) -> (Work, End) {
        let transfer = BlockTransfer::new(self.memory, work, self.back.clone(), write);
        if write {
            self.store.write(transfer);
        } else {
            self.store.read(transfer);
        }
        self.back.wait().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.queue.remove_server();
    }
}
