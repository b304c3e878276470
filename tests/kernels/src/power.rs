//! Generations of pages, for a host that cuts the power.

use alloc::sync::Arc;

use drivers::block::SECTOR_BYTES;
use kernel::{block_pager::BlockPager, memory::memory};
use mm::{FlushRequest, PAGE_SIZE, PageRequest, Pager, Requests, StoreRequest, VmObject};

use crate::{
    check::{Needed, Outcome},
    pages,
};

/// Pages with generations; the first of the disk says which was acknowledged.
const PAGES: u64 = 48;
const GENERATIONS: u64 = 120;

/// A disk's pager that leaves the flush command out, and says that it was done.
struct Forgetful(Arc<BlockPager>);

impl Pager for Forgetful {
    fn name(&self) -> &str {
        "forgetful"
    }

    fn load(&self, request: PageRequest) {
        self.0.load(request);
    }

    fn load_range(&self, requests: Requests<PageRequest>) {
        self.0.load_range(requests);
    }

    fn pages_at_once(&self) -> usize {
        self.0.pages_at_once()
    }

    fn store(&self, request: StoreRequest) {
        self.0.store(request);
    }

    fn store_range(&self, requests: Requests<StoreRequest>) {
        self.0.store_range(requests);
    }

    fn flush(&self, request: FlushRequest) {
        request.complete(Ok(()));
    }
}

/// Pages that were flushed are there, wherever the host cuts the power.
pub(crate) async fn flushed_pages_survive_power_cuts() -> Outcome {
    write_generations(&pages::disk()?.object).await
}

/// The same, but the disk is never told to flush. The host looks that it finds out.
pub(crate) async fn flushes_left_out_are_found_by_power_cuts() -> Outcome {
    let device = &pages::disk()?.device;
    let sectors = (PAGES + 1) * PAGE_SIZE as u64 / SECTOR_BYTES;
    let pager = BlockPager::start("forgetful".into(), device.clone(), 0, sectors);
    let object = VmObject::new(memory(), Arc::new(Forgetful(pager)), PAGES + 1);
    write_generations(&object).await?;
    // QEMU completes its log at a flush only.
    device.flush().await.needed("the disk can be flushed")
}

/// Writes the number of each generation to all words of some pages, flushes, and then, in the disk's first page, says
/// that the flush was acknowledged. Generation `g` has the pages that `g` is a multiple of their number modulo 7, plus 1.
async fn write_generations(object: &Arc<VmObject>) -> Outcome {
    let page = PAGE_SIZE as u64;
    for generation in 1..=GENERATIONS {
        let words = [generation; PAGE_SIZE / 8];
        for number in (1..=PAGES).filter(|number| generation % (number % 7 + 1) == 0) {
            let bytes: alloc::vec::Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            object.write(number * page, &bytes).await.needed("a page is written")?;
        }
        object.flush().await.needed("the disk can be flushed")?;
        object.write(0, &generation.to_le_bytes()).await.needed("the first page is written")?;
    }
    object.flush().await.needed("the disk can be flushed")
}
