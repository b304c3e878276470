//! Uses up its stack.
#![no_std]
#![no_main]

use core::hint::black_box;

use faultline_user::{line, program};

program!(main);

fn main() -> u8 {
    line!("going down");
    line!("came back from {}", deeper(0));
    1
}

/// Half a kilobyte deeper with each call, until `depth` has no next number.
fn deeper(depth: u64) -> u64 {
    let used = black_box([depth; 64]);
    match depth.checked_add(1) {
        Some(next) => deeper(next).max(used[7]),
        None => depth,
    }
}
