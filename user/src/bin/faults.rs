//! Touches many pages of every kind and checks what is in them.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use faultline_user::{line, program};

program!(main);

/// 64 pages that are loaded from the file, and are the same for all who run this program.
static TABLE: [u64; 32_768] = {
    let mut table = [0; 32_768];
    let mut index = 0;
    while index < table.len() {
        table[index] = pattern(index as u64);
        index += 1;
    }
    table
};

/// Eight pages that are loaded from the file, and are this run's own: the next run finds them as they were.
static DATA: [AtomicU64; 4096] = [const { AtomicU64::new(INITIAL) }; 4096];
const INITIAL: u64 = 0x0123_4567_89ab_cdef;

/// 1,024 pages that no file has.
static ZEROS: [AtomicU64; 524_288] = [const { AtomicU64::new(0) }; 524_288];

/// Words in a page.
const STEP: usize = 512;

const fn pattern(index: u64) -> u64 {
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index << 7)
}

fn main() -> u8 {
    let table = core::hint::black_box(&TABLE);
    // Backwards and with gaps first, so that not only the order of the file is tried.
    let in_pages = (0..table.len()).rev().step_by(STEP);
    let wrong = in_pages.chain(0..table.len()).filter(|&index| table[index] != pattern(index as u64)).count();
    line!("table: {} pages, {wrong} words wrong", table.len() / STEP);

    let unequal = DATA.iter().filter(|word| word.load(Relaxed) != INITIAL).count();
    for (index, word) in DATA.iter().enumerate() {
        word.store(pattern(index as u64), Relaxed);
    }
    let lost = count_unequal(&DATA, 1);
    line!("data: {} pages, {unequal} words wrong, {lost} stores lost", DATA.len() / STEP);

    let nonzero = ZEROS.iter().step_by(STEP).filter(|word| word.load(Relaxed) != 0).count();
    for (index, word) in ZEROS.iter().enumerate().step_by(STEP) {
        word.store(pattern(index as u64), Relaxed);
    }
    let forgotten = count_unequal(&ZEROS, STEP);
    line!("zeros: {} pages, {nonzero} not zero, {forgotten} stores lost", ZEROS.len() / STEP);
    u8::from(wrong + unequal + lost + nonzero + forgotten != 0)
}

/// How many of every `step`th word do not hold their pattern.
fn count_unequal(words: &[AtomicU64], step: usize) -> usize {
    let looked = words.iter().enumerate().step_by(step);
    looked.filter(|(index, word)| word.load(Relaxed) != pattern(*index as u64)).count()
}
