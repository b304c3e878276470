//! The command line of `cargo run`.
use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::disk::{DiskSpec, MAX_FAILING_SECTORS};
use crate::example::Example;
use crate::gdb::Debugger;
use crate::host::AcceleratorChoice;
use crate::log_spec;
use crate::workspace::Profile;

const ENVIRONMENT: &str = "Environment:
  FAULTLINE_QEMU  QEMU's program, if it is not qemu-system-x86_64 in PATH
  FAULTLINE_OVMF  the firmware for --uefi, if it is in none of the usual places";

/// Builds the Faultline kernel and runs it in QEMU.
///
/// Without --exec and --vmscript the kernel gives a tour of what it does; the console follows where standard input is a
/// terminal. The exit status is the kernel's own, or 101 after a kernel panic, 102 after a triple fault or an
/// unexpected reset, 103 after the time limit, 104 when the run could not be set up.
#[derive(Clone, Debug, Parser)]
#[command(name = "faultline", args_conflicts_with_subcommands = true, after_help = ENVIRONMENT)]
pub struct Cli {
    /// What to do instead of running the kernel.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Boot by BIOS (the default)
    #[arg(long, conflicts_with = "uefi")]
    pub bios: bool,
    /// Boot by UEFI
    #[arg(long)]
    pub uefi: bool,
    /// Memory of the machine, such as 64M or 2G [default: 256M, or what the example asks for]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u32>,
    /// Number of processors [default: 4, or what the example asks for; 1 with --record]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub smp: Option<u32>,
    /// What executes the machine's instructions
    #[arg(long, value_enum, value_name = "KIND", default_value = "auto")]
    pub accel: AcceleratorChoice,
    /// Add a disk that the machine may write, locked against other processes (repeatable)
    #[arg(long, value_name = "FILE")]
    pub disk: Vec<PathBuf>,
    /// Add a disk that the machine may only read (repeatable)
    #[arg(long, value_name = "FILE")]
    pub disk_ro: Vec<PathBuf>,
    /// Limit the disk named last to N requests a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub disk_iops: Vec<u32>,
    /// Let reads of these sectors (512 bytes each) of the disk named last fail (repeatable)
    #[arg(long, value_name = "SECTOR[,COUNT]", value_parser = sectors)]
    pub disk_fail: Vec<Range<u64>>,
    /// Swap to this file, which is made with 1 GiB, without taking up any of it, if it is not there
    #[arg(long, value_name = "FILE")]
    pub swap: Option<PathBuf>,
    /// Run one console command and power off with its status; standard output carries its output only
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["console", "no_tour"])]
    pub exec: Option<String>,
    /// Play a scenario of the VM core and power off, with status 1 if a line was wrong; standard output carries its answers
    /// only
    #[arg(long, value_name = "FILE", conflicts_with_all = ["exec", "console", "no_tour"])]
    pub vmscript: Option<PathBuf>,
    /// Record faults, switches, requests and page states, for Perfetto (ui.perfetto.dev) or chrome://tracing
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Offer the console though standard input is no terminal
    #[arg(long)]
    pub console: bool,
    /// Leave the tour out
    #[arg(long)]
    pub no_tour: bool,
    /// Open no window (the default)
    #[arg(long, conflicts_with = "display")]
    pub headless: bool,
    /// Show the machine's screen in a window
    #[arg(long)]
    pub display: bool,
    /// Save the machine's screen as PNG when the run ends: when the commands are done, after a panic, at the time limit
    #[arg(long, value_name = "FILE")]
    pub screenshot: Option<PathBuf>,
    /// Build the kernel without optimisation
    #[arg(long, conflicts_with = "release")]
    pub debug: bool,
    /// Optimise across crates, as for the figures in docs/; takes three times as long to build after a change
    #[arg(long)]
    pub release: bool,
    /// Let a nanosecond of the machine's time be one instruction, to count them; the kernel is that of --release
    #[arg(long)]
    pub icount: bool,
    /// Record the run: one processor, and nothing that it writes to its disks lasts
    #[arg(long, value_name = "FILE", conflicts_with_all = ["icount", "trace"])]
    pub record: Option<PathBuf>,
    /// Run what was recorded again, instruction by instruction, with the options that it had
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "record", "bios", "uefi", "memory", "smp", "accel", "disk", "disk_ro", "disk_iops", "disk_fail", "swap", "exec",
        "vmscript", "trace", "console", "no_tour", "debug", "release", "icount", "cmdline", "log", "example", "kernel_package",
        "kernel_bin", "qemu_args",
    ])]
    pub replay: Option<PathBuf>,
    /// Stop the machine at the kernel's entry and start gdb there, in this terminal; with =wait tell how to start it in
    /// another one. With --replay gdb goes backwards, too
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "start",
        conflicts_with = "record")]
    pub gdb: Option<Debugger>,
    /// Stop the machine after this time
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub timeout: Option<u64>,
    /// The kernel's own options
    #[arg(long, value_name = "STRING", default_value = "")]
    pub cmdline: String,
    /// Run a prototype kernel of the folder examples/
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kernel_package", "kernel_bin", "exec", "vmscript"])]
    pub example: Option<String>,
    /// What the kernel logs: levels for all and for some modules, such as info,mm=trace
    #[arg(long, value_name = "SPEC", value_parser = log_spec)]
    pub log: Option<String>,
    /// Run a kernel of this package
    #[arg(long, value_name = "PACKAGE", default_value = "kernel")]
    pub kernel_package: String,
    /// Run this binary of the package
    #[arg(long, value_name = "NAME", default_value = "faultline-kernel")]
    pub kernel_bin: String,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub qemu_args: Vec<OsString>,
    /// The disks in their order, with what was said about each.
    #[arg(skip)]
    pub disks: Vec<DiskSpec>,
    /// All words, without the program's name.
    #[arg(skip)]
    pub words: Vec<OsString>,
}

/// What to do instead of running the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Task {
    /// Check the tools that a run needs, and tell how to get each one that is missing
    Doctor,
}

impl Cli {
    /// Whether the run is for one thing, whose output is ours.
    pub fn has_one_task(&self) -> bool {
        self.exec.is_some() || self.vmscript.is_some()
    }

    /// How the kernel is built. A runner that is itself optimised, by `cargo run --release`, builds the kernel alike.
    pub fn profile(&self) -> Profile {
        match self {
            Self { debug: true, .. } => Profile::Debug,
            Self { release: true, .. } | Self { icount: true, .. } => Profile::Release,
            _ if cfg!(debug_assertions) => Profile::Quick,
            _ => Profile::Release,
        }
    }

    /// Memory in MiB: what the user says, or the example.
    pub fn memory_mib(&self, example: Option<&Example>) -> u32 {
        self.memory.or_else(|| example?.memory_mib).unwrap_or(256)
    }

    /// The number of processors: what the user says, or the example.
    pub fn cpus(&self, example: Option<&Example>) -> u32 {
        let usual = if self.record.is_some() || self.replay.is_some() { 1 } else { 4 };
        self.smp.or_else(|| example?.cpus).unwrap_or(usual)
    }

    /// The kernel's command line.
    pub fn kernel_cmdline(&self) -> String {
        let log = self.log.as_ref().map(|spec| format!("log={spec}"));
        let parts: Vec<&str> = [Some(self.cmdline.as_str()), log.as_deref()].into_iter().flatten().collect();
        parts.join(" ").trim().to_owned()
    }

    /// Reads a command line, the program's name first. Ends the process after a usage error or `--help`.
    ///
    /// # Errors
    /// When options that apply to a disk have none.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let args: Vec<OsString> = args.into_iter().collect();
        let matches = Self::command().get_matches_from(&args);
        Ok(Self { words: args.into_iter().skip(1).collect(), ..Self::from_matches(&matches)? })
    }

    /// Like [`Cli::read`], and returns usage errors.
    ///
    /// # Errors
    /// When the command line is wrong.
    pub fn try_read(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let args: Vec<OsString> = args.into_iter().collect();
        let matches = Self::command().try_get_matches_from(&args)?;
        Ok(Self { words: args.into_iter().skip(1).collect(), ..Self::from_matches(&matches)? })
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self> {
        let mut cli = Self::from_arg_matches(matches).unwrap_or_else(|why| why.exit());
        cli.disks = cli.gather_disks(matches)?;
        // The kernel takes one of the two.
        if cli.log.is_some() && cli.cmdline.split_whitespace().any(|word| word.starts_with("log=")) {
            bail!("what is logged is said twice: by --log, and by log= in --cmdline");
        }
        Ok(cli)
    }

    /// Options about a disk belong to the one named last before them, so their order counts.
    fn gather_disks(&self, matches: &ArgMatches) -> Result<Vec<DiskSpec>> {
        let places = |id: &str| matches.indices_of(id).into_iter().flatten().collect::<Vec<usize>>();
        let mut said: Vec<(usize, Said)> = Vec::new();
        let files = self.disk.iter().map(|path| DiskSpec { path: path.clone(), ..DiskSpec::default() });
        said.extend(places("disk").into_iter().zip(files.map(Said::Disk)));
        said.extend(
            places("disk_ro").into_iter().zip(self.disk_ro.iter().map(DiskSpec::read_only).map(Said::Disk)),
        );
        said.extend(places("disk_iops").into_iter().zip(self.disk_iops.iter().copied().map(Said::Iops)));
        said.extend(places("disk_fail").into_iter().zip(self.disk_fail.iter().cloned().map(Said::Fail)));
        said.sort_by_key(|(place, _)| *place);

        let mut disks: Vec<DiskSpec> = Vec::new();
        for (_, said) in said {
            match (said, disks.last_mut()) {
                (Said::Disk(disk), _) => disks.push(disk),
                (Said::Iops(_), None) => bail!("--disk-iops needs a --disk in front of it"),
                (Said::Fail(_), None) => bail!("--disk-fail needs a --disk in front of it"),
                (Said::Iops(_), Some(DiskSpec { iops: Some(_), path, .. })) => {
                    bail!("--disk-iops is given twice for {}", path.display())
                }
                (Said::Iops(iops), Some(disk)) => disk.iops = Some(iops),
                (Said::Fail(range), Some(disk)) => {
                    disk.failing.push(range);
                    let sum = disk.failing.iter().map(|range| range.end - range.start).sum::<u64>();
                    if sum > MAX_FAILING_SECTORS {
                        bail!(
                            "--disk-fail: at most {MAX_FAILING_SECTORS} sectors of a disk can fail, not {sum}"
                        );
                    }
                }
            }
        }
        Ok(disks)
    }
}

enum Said {
    Disk(DiskSpec),
    Iops(u32),
    Fail(Range<u64>),
}

/// A word for the kernel's command line, which the kernel reads in the same way.
fn log_spec(text: &str) -> Result<String, String> {
    if text.contains(char::is_whitespace) {
        return Err("it is one word, such as info,mm=trace".into());
    }
    log_spec::check(text).map(|_| text.to_owned()).map_err(|why| why.to_string())
}

/// Reads a size, in MiB unless it says otherwise.
pub(crate) fn memory(text: &str) -> Result<u32, String> {
    const LEAST: u32 = 32;
    const MOST: u32 = 32 << 10;
    let (digits, mib) = match text.as_bytes().last() {
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1024),
        _ => (text, 1),
    };
    let size = digits.parse::<u32>().ok().and_then(|count| count.checked_mul(mib));
    let size = size.ok_or("a size looks like 64M or 2G")?;
    if !(LEAST..=MOST).contains(&size) {
        return Err(format!("a machine has from {LEAST}M to {}G", MOST / 1024));
    }
    Ok(size)
}

fn sectors(text: &str) -> Result<Range<u64>, String> {
    let (first, count) = text.split_once(',').unwrap_or((text, "1"));
    let number =
        |text: &str| text.trim().parse::<u64>().map_err(|_| format!("`{text}` is no number of sectors"));
    let (first, count) = (number(first)?, number(count)?);
    if count == 0 {
        return Err("a count of 0 sectors fails nothing".into());
    }
    // QEMU counts bytes in 63 bits.
    let end = first.checked_add(count).filter(|end| *end < 1 << 54).ok_or("no disk has so many sectors")?;
    Ok(first..end)
}

#[cfg(test)]
mod tests;
