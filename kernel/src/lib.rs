//! The kernel crate.
#![no_std]
