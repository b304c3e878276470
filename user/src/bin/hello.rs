//! The smallest program that says something.
#![no_std]
#![no_main]

use faultline_user::{line, program, system};

program!(main);

fn main() -> u8 {
    line!("hello from ring 3");
    line!("parent: {}", system::parent());
    0
}
