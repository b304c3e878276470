//! The executor crate.
#![no_std]
