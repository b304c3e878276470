//! The program behind `cargo run`.
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use faultline::cli::Cli;
use faultline::qemu::Accelerator;
use faultline::terminal::{RawTerminal, forward_input};
use faultline::workspace::Program;
use faultline::{Firmware, Machine, MachineConfig, Outcome, Profile, Sinks, Workspace};

fn main() -> ExitCode {
    faultline::launcher::become_child_if_asked();
    let cli = Cli::parse();
    match run(cli) {
        Ok(outcome) => {
            if let Some(s) = outcome.sentence() {
                eprintln!("faultline: {s}");
            }
            outcome.into()
        }
        Err(why) => {
            eprintln!("faultline: {why:#}");
            ExitCode::from(Outcome::SETUP_ERROR)
        }
    }
}

fn run(cli: Cli) -> Result<Outcome> {
    let ws = Workspace::find()?;
    let profile = if cli.debug { Profile::Debug } else { Profile::Release };
    let kernel = match &cli.elf {
        Some(elf) => Program { name: "throwaway".into(), elf: elf.clone() },
        None => ws.build_kernels("kernel", Some("faultline-kernel"), profile)?.remove(0),
    };
    let users = ws.build_user_programs(Profile::Release)?;
    let fw = if cli.uefi { Firmware::Uefi } else { Firmware::Bios };
    let boot = faultline::image::pack(&ws, &kernel, profile, fw)?;
    let mut c = MachineConfig::new(boot);
    if cli.uefi {
        c.ovmf = faultline::machine::find_ovmf();
    }
    c.memory_mib = cli.memory;
    c.cpus = cli.smp;
    c.accelerator = Accelerator::Tcg;
    let mut specs: Vec<_> = cli
        .disk
        .iter()
        .map(|p| faultline::disk::DiskSpec { path: p.clone(), ..Default::default() })
        .collect();
    specs.extend(cli.disk_ro.iter().map(faultline::disk::DiskSpec::read_only));
    c.disks = faultline::disk::check_all(&specs)?;
    if c.disks.is_empty() && cli.exec.is_none() {
        c.disks.push(faultline::disk::demo_disk(&ws)?);
    }
    c.disks.extend(faultline::disk::programs_disk(&ws, &users)?);
    c.display = cli.display;
    c.icount = cli.icount;
    c.cmdline = cli.cmdline.clone();
    c.exec = cli.exec.clone();
    c.tour = cli.exec.is_none();
    c.console = c.tour && io::stdin().is_terminal();
    c.extra = cli.qemu_args.clone();
    let sinks = if c.exec.is_some() {
        Sinks { console: Box::new(io::stderr()), exec: Box::new(io::stdout()) }
    } else {
        Sinks { console: Box::new(io::stdout()), exec: Box::new(io::sink()) }
    };
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ])?;
    let mut machine = Machine::start(&c, sinks, cli.timeout.map(Duration::from_secs))?;
    let stopper = machine.stopper();
    std::thread::spawn(move || {
        for s in signals.forever() {
            stopper.interrupt(s)
        }
    });
    let _t = c.console.then(RawTerminal::enter);
    if let Some(input) = machine.console_input()
        && c.console
    {
        forward_input(input);
    }
    machine.wait(|_| ())
}
