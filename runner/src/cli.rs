//! The command line of `cargo run`.
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::disk::DiskSpec;

/// Builds the Faultline kernel and runs it in QEMU.
#[derive(Debug, Parser)]
#[command(name = "faultline", args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Task>,

    /// Boot by BIOS (the default).
    #[arg(long, conflicts_with = "uefi")]
    pub bios: bool,
    /// Boot by UEFI.
    #[arg(long)]
    pub uefi: bool,
    /// Memory of the machine.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = memory)]
    pub memory: u32,
    /// Number of processors.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub smp: u32,
    #[arg(long, value_enum, default_value = "auto")]
    pub accel: AccelChoice,
    #[arg(long, value_name = "FILE")]
    pub disk: Vec<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub disk_ro: Vec<PathBuf>,
    #[arg(long, value_name = "N")]
    pub disk_iops: Vec<u32>,
    #[arg(long, value_name = "SECTOR[,COUNT]")]
    pub disk_fail: Vec<String>,
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    #[arg(long, conflicts_with = "display")]
    pub headless: bool,
    #[arg(long)]
    pub display: bool,
    #[arg(long)]
    pub debug: bool,
    #[arg(long)]
    pub icount: bool,
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    #[arg(long, value_name = "STRING", default_value = "")]
    pub cmdline: String,
    #[arg(last = true)]
    pub qemu_args: Vec<OsString>,
    #[arg(long, hide = true)]
    pub elf: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Task {
    Doctor,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelChoice {
    Auto,
    Kvm,
    Tcg,
}
fn memory(text: &str) -> Result<u32, String> {
    text.trim_end_matches('M').parse().map_err(|_| "x".to_string())
}
