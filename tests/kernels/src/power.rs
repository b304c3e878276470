//! Generations of pages, for a host that cuts the power.

use mm::PAGE_SIZE;

use crate::{
    check::{Needed, Outcome},
    pages,
};

/// Pages with generations; the first of the disk says which was acknowledged.
const PAGES: u64 = 48;
const GENERATIONS: u64 = 120;

/// Writes the number of each generation to all words of some pages, flushes, and then, in the disk's first page, says
/// that the flush was acknowledged. Generation `g` has the pages that `g` is a multiple of their number modulo 7, plus 1.
pub(crate) async fn flushed_pages_survive_power_cuts() -> Outcome {
    let object = &pages::disk()?.object;
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
