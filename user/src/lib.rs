//! Ring-3 programs.
#![no_std]
