//! From the options of the command line to the machine's outcome.
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::Cli;
use crate::disk::{self, Disk};
use crate::example::{self, Example};
use crate::gdb::{Debugger, Gdb};
use crate::host::{self, AcceleratorChoice, Kvm, Window};
use crate::image::{self, Firmware, ToolBuild};
use crate::machine::{Machine, Sinks, Stopper};
use crate::outcome::Outcome;
use crate::outputs;
use crate::qemu::{MAX_DISKS, MAX_VMSCRIPT, MachineConfig, Tape};
use crate::record::{Record, Recording};
use crate::screenshot::Picture;
use crate::terminal::{RawTerminal, forward_input};
use crate::trace::Sink;
use crate::trace::file::Claim;
use crate::workspace::{DebugInfo, Profile, Workspace};

/// Builds the kernel and runs it as `cli` says, with this process's input and output.
///
/// # Errors
/// When the run cannot be set up. What is wrong with the options is found before anything is built.
pub fn run(cli: &Cli) -> Result<Outcome> {
    match &cli.replay {
        Some(log) => {
            let record = Record::open(log)?;
            // Its place is that of this run, whatever folder the other one had.
            let screenshot = cli.screenshot.as_deref().map(std::path::absolute).transpose()?;
            let cli = record.options(&Cli { screenshot, ..cli.clone() })?;
            run_as(&cli, Some(&record))
        }
        None => run_as(cli, None),
    }
}

fn run_as(cli: &Cli, record: Option<&Record>) -> Result<Outcome> {
    let qemu = host::qemu_version()?;
    let workspace = Workspace::find()?;
    let example = cli.example.as_deref().map(|name| Example::find(workspace.root(), name)).transpose()?;
    let cpus = cli.cpus(example.as_ref());
    let is_taped = cli.record.is_some() || record.is_some();
    if is_taped && cpus > 1 {
        bail!("--record: a machine of {cpus} processors cannot be recorded, only one of --smp 1");
    }
    if is_taped && cli.accel == AcceleratorChoice::Kvm {
        bail!("--record counts the translator's instructions: it needs --accel tcg");
    }
    let accelerator = cli.accel.decide(cli.icount || is_taped, &Kvm::probe())?;
    let display = cli.display.then(Window::find).transpose()?;
    let ovmf = if cli.uefi { Some(host::ovmf()?) } else { None };
    // One place is for the disk of user programs, and one for swap.
    let most = MAX_DISKS - 1 - usize::from(cli.swap.is_some());
    if cli.disks.len() > most {
        bail!("{} disks are too many: the machine has room for {most}", cli.disks.len());
    }
    let disks = disk::check_all(&cli.disks)?;
    if record.is_some() && cli.gdb.is_some() {
        disks.iter().try_for_each(Disk::check_reversible)?;
    }
    let vmscript = cli.vmscript.as_deref().map(scenario).transpose()?;
    outputs::check(cli)?;
    let swap = cli.swap.as_deref().map(|path| disk::swap_disk(path, &disks)).transpose()?;
    // A run whose trace another one writes ends before anything is built; an older trace stays until this run boots.
    let trace_claim = cli.trace.as_deref().map(claim).transpose()?;

    let profile = cli.profile();
    // A kernel with more debug information is another kernel, and what is recorded may be walked through with gdb later.
    let is_for_gdb = cli.gdb.is_some() || is_taped;
    let debug_info = if is_for_gdb { DebugInfo::Full } else { DebugInfo::Lines };
    // The first time the image tool takes longer than all the rest, and ends at once if the kernel does not compile.
    let tool = ToolBuild::begin(&workspace)?;
    let (package, bin) = match &example {
        Some(example) => (example::PACKAGE, &example.name),
        None => (&*cli.kernel_package, &cli.kernel_bin),
    };
    let kernels = workspace.build_bare(package, Some(bin), profile, debug_info)?;
    let mut disks = all_disks(cli, &workspace, disks)?;
    disks.extend(swap);
    let tool = tool.finish()?;
    let kernel = kernels.first().context("cargo built the kernel, but named no file")?;
    let firmware = if cli.uefi { Firmware::Uefi } else { Firmware::Bios };
    let extra = example.iter().flat_map(|example| &example.qemu_args).map(OsString::from);
    let console = match record {
        Some(record) => record.has_console(),
        None => cli.console || (!cli.has_one_task() && io::stdin().is_terminal()),
    };
    let log = record.map(Record::log).or(cli.record.as_deref());
    let config = MachineConfig {
        ovmf,
        memory_mib: cli.memory_mib(example.as_ref()),
        cpus,
        accelerator,
        disks,
        display,
        stays: cli.screenshot.is_some(),
        icount: cli.icount,
        gdb: cli.gdb.is_some(),
        cmdline: cli.kernel_cmdline(),
        tape: log.map(|log| Tape { log: log.into(), replays: record.is_some() }),
        exec: cli.exec.clone(),
        vmscript,
        tour: !cli.has_one_task() && !cli.no_tour,
        console,
        trace: trace_claim.is_some(),
        extra: extra.chain(cli.qemu_args.iter().cloned()).collect(),
        ..MachineConfig::new(image::pack(&workspace, &tool, kernel, profile, firmware)?)
    };
    let recording = match (record, &cli.record) {
        (Some(record), _) => record.check(&config, &qemu).map(|()| None)?,
        (None, Some(log)) => Some(Recording::begin(log, cli, &config, &qemu)?),
        (None, None) => None,
    };
    let limit = cli.timeout.map(Duration::from_secs);
    let trace = trace_claim.map(begin_trace).transpose()?;
    let outcome = boot(&config, trace, cli.screenshot.as_deref(), limit, cli.gdb)?;
    recording.map_or(Ok(()), |recording| recording.keep(outcome)).context("there is no record")?;
    Ok(record.map_or(outcome, |record| record.outcome(outcome)))
}

fn claim(path: &Path) -> Result<Claim> {
    Claim::new(path).with_context(|| format!("cannot write {}", path.display()))
}

fn begin_trace(claim: Claim) -> Result<Box<dyn Sink>> {
    Ok(Box::new(claim.begin().context("the trace cannot be written")?))
}

/// A scenario that the kernel can take over.
fn scenario(path: &Path) -> Result<Vec<u8>> {
    let script = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if script.len() > MAX_VMSCRIPT {
        bail!("{} is too long: a scenario has at most {MAX_VMSCRIPT} bytes", path.display());
    }
    Ok(script)
}

/// The user's disks, or the one for the tour; and the user programs.
fn all_disks(cli: &Cli, workspace: &Workspace, mut disks: Vec<Disk>) -> Result<Vec<Disk>> {
    if disks.is_empty() && !cli.has_one_task() {
        disks.push(disk::demo_disk(workspace)?);
    }
    // User programs are optimised in any case: it is the kernel that --debug is about.
    let profile = if cli.debug { Profile::Quick } else { cli.profile() };
    let programs = workspace.build_user_programs(profile)?;
    disks.extend(disk::programs_disk(workspace, &programs)?);
    Ok(disks)
}

fn boot(
    config: &MachineConfig,
    trace: Option<Box<dyn Sink>>,
    screenshot: Option<&Path>,
    limit: Option<Duration>,
    debugger: Option<Debugger>,
) -> Result<Outcome> {
    // From here on a signal ends the machine, and what this process has made is removed.
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
    let screenshot = screenshot.map(Picture::begin).transpose()?;
    let has_one_task = config.exec.is_some() || config.vmscript.is_some();
    let sinks = match has_one_task {
        true => Sinks {
            console: Box::new(io::stderr()),
            exec: Box::new(io::stdout()),
            messages: Box::new(io::stderr()),
            trace,
            screenshot,
        },
        false => Sinks {
            console: Box::new(io::stdout()),
            exec: Box::new(io::sink()),
            messages: Box::new(io::stderr()),
            trace,
            screenshot,
        },
    };
    let mut machine = Machine::start(config, sinks, limit)?;
    let gdb = debugger.and_then(|how| Gdb::start(how, &machine.gdb_script()));
    stop_on_signal(signals, machine.stopper(), gdb.as_ref().map(Gdb::is_over));
    let input = machine.console_input();
    if let Some(gdb) = gdb {
        // The terminal is the debugger's. The machine's keyboard is that of its window.
        let outcome = machine.wait(|_| ());
        drop(input);
        gdb.wait();
        return outcome;
    }
    // Lives until the machine has ended: then the terminal is as it was.
    let _terminal = config.console.then(RawTerminal::enter);
    // What was typed in a run that is replayed is in its record.
    let replays = config.tape.as_ref().is_some_and(|tape| tape.replays);
    if config.console && !replays {
        if let Some(input) = input {
            forward_input(input);
        }
        return machine.wait(|_| ());
    }
    // Open until the end: a console without input is not one whose input has ended.
    let outcome = machine.wait(|_| ());
    drop(input);
    outcome
}

/// Ctrl-C is for the debugger as long as there is one.
fn stop_on_signal(mut signals: Signals, stopper: Stopper, is_debugger_over: Option<Arc<AtomicBool>>) {
    thread::spawn(move || {
        for signal in signals.forever() {
            if signal != SIGINT || is_debugger_over.as_ref().is_none_or(|is_over| is_over.load(Relaxed)) {
                stopper.interrupt(signal);
            }
        }
    });
}
