//! The host side of Faultline: from sources to a running machine and its outcome.
//!
//! `cargo run` starts the small program on top of this library; the tests use the library directly. The way
//! of a run: [`workspace`] builds the kernel, [`image`] packs it, [`qemu`] writes QEMU's command line,
//! [`machine`] starts QEMU and waits for its [`Outcome`], while [`symbols`] turns the addresses of a panic's
//! backtrace into functions and lines.
//!
//! Nothing here depends on the crates that run inside the machine. What both sides must agree on is text:
//! the files that the kernel reads by fw_cfg ([`qemu`]) and the lines that it sends ([`control`]). And the words of what
//! is recorded ([`trace`]) and of `--log`, which stand in files of the kernel's that are read here, too.
//!
//! Errors that end before the machine runs, or because of its surroundings, are [`anyhow::Error`]s whose
//! text is one sentence for the user.
mod build_aside;
pub mod cli;
pub mod control;
pub mod disk;
pub mod doctor;
pub mod example;
pub mod gdb;
pub mod host;
pub mod image;
pub mod launcher;
#[path = "../../kernel/src/logging/spec.rs"]
mod log_spec;
pub mod machine;
pub mod outcome;
mod outputs;
mod overlay;
mod pumps;
pub mod qemu;
pub mod qmp;
pub mod record;
pub mod run;
pub mod screenshot;
pub mod symbols;
mod tell;
pub mod terminal;
pub mod toolchain;
pub mod trace;
pub mod workspace;

pub use image::Firmware;
pub use machine::{Machine, Sinks};
pub use outcome::Outcome;
pub use qemu::MachineConfig;
pub use tell::tell;
pub use workspace::{DebugInfo, Profile, Workspace};
