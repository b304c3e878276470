//! The drivers crate.
#![no_std]
