//! The sixteen colours that terminals have, the screen among them: each writes its number.
#![no_std]
#![no_main]

use faultline_user::{line, program};

program!(main);

fn main() -> u8 {
    for number in 0..8 {
        line!("\x1b[3{number}mcolour {number}\x1b[m  \x1b[9{number}mcolour {}\x1b[m", number + 8);
    }
    line!("\x1b[7minverse\x1b[m");
    0
}
