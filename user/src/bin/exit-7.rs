//! Ends with a status of its own.
#![no_std]
#![no_main]

faultline_user::program!(main);

fn main() -> u8 {
    7
}
