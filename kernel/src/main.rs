//! The kernel that `cargo run` starts: the machine, and a console on top.
#![no_std]
#![no_main]

kernel::entry!(kernel::console::main);
