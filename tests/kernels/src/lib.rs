//! The guest side of the tests.
#![no_std]
