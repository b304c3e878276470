//! The simulated machine, and scenes that several test programs begin with.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

pub mod blocks;
pub mod one_page;
pub mod overlay;
pub mod seed;
pub mod shown;
pub mod swap;
pub mod victims;

pub use mm_simulator::*;
