//! The mm crate.
#![no_std]
