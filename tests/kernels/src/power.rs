//! Generations of pages, for a host that cuts the power.

use alloc::sync::Arc;

use drivers::{block::SECTOR_BYTES, virtio_blk::VirtioBlk};
use kernel::{block_pager::BlockPager, memory::memory};
use mm::{FlushRequest, PAGE_SIZE, PageIndex, PageRequest, Pager, Requests, StoreRequest, VmObject};

use crate::{
    check::{Failure, Needed, Outcome},
    pages,
};

/// Pages with generations; the first of the disk says which was acknowledged.
const PAGES: u64 = 48;
const GENERATIONS: u64 = 120;
/// The first page that is stored after a flush that comes too early. It is written in each generation.
const LATE: u64 = 42;

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
    write_generations(&pages::disk()?.object, None).await
}

/// The same, but the disk is never told to flush. The host looks that it finds out.
pub(crate) async fn flushes_left_out_are_found_by_power_cuts() -> Outcome {
    let (device, object) = forgetful()?;
    write_generations(&object, None).await?;
    // QEMU completes its log at a flush only.
    device.flush().await.needed("the disk can be flushed")
}

/// The same, but the disk is told to flush when the last pages of a generation are still to be stored. The host looks that
/// it finds out.
pub(crate) async fn flushes_before_the_last_store_are_found_by_power_cuts() -> Outcome {
    let (device, object) = forgetful()?;
    write_generations(&object, Some(device)).await?;
    device.flush().await.needed("the disk can be flushed")
}

/// The disk, and an object on it whose flushes do not reach it.
fn forgetful() -> Result<(&'static Arc<VirtioBlk>, Arc<VmObject>), Failure> {
    let device = &pages::disk()?.device;
    let sectors = (PAGES + 1) * PAGE_SIZE as u64 / SECTOR_BYTES;
    let pager = BlockPager::start("forgetful".into(), device.clone(), 0, sectors);
    Ok((device, VmObject::new(memory(), Arc::new(Forgetful(pager)), PAGES + 1)))
}

/// Writes the number of each generation to all words of some pages, flushes, and then, in the disk's first page, says
/// that the flush was acknowledged. Generation `g` has the pages that `g` is a multiple of their number modulo 7, plus 1.
/// `early` is a disk that is told to flush before the last pages of each generation are stored.
async fn write_generations(object: &Arc<VmObject>, early: Option<&Arc<VirtioBlk>>) -> Outcome {
    let page = PAGE_SIZE as u64;
    for generation in 1..=GENERATIONS {
        let words = [generation; PAGE_SIZE / 8];
        for number in (1..=PAGES).filter(|number| generation % (number % 7 + 1) == 0) {
            let bytes: alloc::vec::Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            object.write(number * page, &bytes).await.needed("a page is written")?;
        }
        flush(object, early).await?;
        object.write(0, &generation.to_le_bytes()).await.needed("the first page is written")?;
    }
    flush(object, early).await
}

async fn flush(object: &Arc<VmObject>, early: Option<&Arc<VirtioBlk>>) -> Outcome {
    if let Some(device) = early {
        object.store(PageIndex::new(0)..PageIndex::new(LATE)).await.needed("pages can be stored")?;
        device.flush().await.needed("the disk can be flushed")?;
    }
    object.flush().await.needed("the object can be flushed")
}
