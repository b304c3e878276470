//! Models of the crate's small protocols: loom tries every order of their steps that matters.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p executor --release --test models`. Each loom thread is a CPU; the
//! first one runs the tasks. A lost wake shows as a deadlock: then all threads of the model sleep.
#![cfg(loom)]

mod channels;
mod cpus;
mod support;
mod tasks;
mod waits;
