//! Runs the table: builds once, boots two at a time, shows what a failed test printed.
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, bail};
use faultline::disk::{self, Disk};
use faultline::host::{self, AcceleratorChoice, Kvm};
use faultline::image::ToolBuild;
use faultline::qemu::Accelerator;
use faultline::workspace::Program;
use faultline::{DebugInfo, Firmware, MachineConfig, Profile, Workspace, image};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::case::{Case, Kernel};
use crate::session::{Output, Session};

/// More machines at a time than this would measure each other.
const MACHINES_AT_A_TIME: usize = 2;
/// How much longer storms are when asked for.
const STORM_FACTOR: u32 = 20;
/// A failed test shows the end of its console only.
const SHOWN_LINES: usize = 200;

/// A test that starts machines by the runner's program: its name, and what decides.
pub type RunnerTest = (&'static str, fn(&Built) -> Result<()>);

/// All guest tests.
pub struct Suite {
    cases: Vec<Case>,
    runner_tests: Vec<RunnerTest>,
}

/// What tests run, built once.
pub struct Built {
    workspace: Workspace,
    image_tool: PathBuf,
    kernels: HashMap<Kernel, Program>,
    programs: Option<Disk>,
    accelerator: Accelerator,
    storm: u32,
    /// The program of `cargo run`.
    pub runner: PathBuf,
    /// Held for writing by a test that runs alone.
    quiet: RwLock<()>,
}

impl Suite {
    /// These cases, and tests of the runner's program that need a machine.
    pub fn new(cases: Vec<Case>, runner_tests: Vec<RunnerTest>) -> Self {
        Self { cases, runner_tests }
    }

    /// Runs what the command line asks for.
    pub fn run(self) -> ExitCode {
        let (storm, words) = storm_factor(std::env::args(), std::env::var("FAULTLINE_STORM").ok());
        let mut arguments = Arguments::from_iter(words);
        arguments.test_threads = Some(arguments.test_threads.unwrap_or(MACHINES_AT_A_TIME));
        if arguments.list {
            return libtest_mimic::run(&arguments, self.trials(None)).exit_code();
        }
        let asked = |name: &str| is_asked(&arguments, name);
        let any = self.cases.iter().any(|case| asked(case.name))
            || self.runner_tests.iter().any(|(name, _)| asked(name));
        let built = match any.then(|| build(storm)).transpose() {
            Ok(built) => built.map(Arc::new),
            Err(why) => {
                eprintln!("faultline: {why:#}");
                return ExitCode::from(101);
            }
        };
        libtest_mimic::run(&arguments, self.trials(built)).exit_code()
    }

    fn trials(self, built: Option<Arc<Built>>) -> Vec<Trial> {
        let mut trials = Vec::new();
        for case in self.cases {
            let built = built.clone();
            trials.push(Trial::test(case.name, move || {
                boot(&case, built.as_deref().expect("built before it runs"))
            }));
        }
        for (name, test) in self.runner_tests {
            let built = built.clone();
            trials.push(Trial::test(name, move || {
                let built = built.as_deref().expect("built before it runs");
                let _quiet = built.quiet.read();
                test(built).map_err(|why| Failed::from(format!("{why:#}")))
            }));
        }
        trials
    }
}

/// Takes `--storm` out of the words; the environment may ask for a storm, too.
fn storm_factor(words: impl Iterator<Item = String>, environment: Option<String>) -> (u32, Vec<String>) {
    let (asked, words): (Vec<_>, Vec<_>) = words.partition(|word| word == "--storm");
    let factor = match environment.as_deref().map(str::parse::<u32>) {
        Some(Ok(factor @ 2..)) => factor,
        Some(Ok(1)) => STORM_FACTOR,
        _ if !asked.is_empty() => STORM_FACTOR,
        _ => 1,
    };
    (factor, words)
}

/// As libtest decides it.
fn is_asked(arguments: &Arguments, name: &str) -> bool {
    let matches =
        |pattern: &String| if arguments.exact { name == pattern } else { name.contains(pattern.as_str()) };
    arguments.filter.as_ref().is_none_or(&matches) && !arguments.skip.iter().any(matches)
}

fn build(storm: u32) -> Result<Built> {
    host::qemu_version()?;
    let workspace = Workspace::find()?;
    // What does not compile is told before the image tool is there.
    let image_tool = ToolBuild::begin(&workspace)?;
    let kernels = build_kernels(&workspace)?;
    let programs = workspace.build_user_programs(Profile::Release)?;
    let programs = disk::programs_disk(&workspace, &programs)?;
    let image_tool = image_tool.finish()?;
    let accelerator = AcceleratorChoice::Auto.decide(false, &Kvm::probe())?;
    Ok(Built {
        runner: build_runner(&workspace)?,
        workspace,
        image_tool,
        kernels,
        programs,
        accelerator,
        storm,
        quiet: RwLock::new(()),
    })
}

fn build_kernels(workspace: &Workspace) -> Result<HashMap<Kernel, Program>> {
    let mut kernels = HashMap::new();
    for program in
        workspace.build_bare("kernel", Some("faultline-kernel"), Profile::Release, DebugInfo::Lines)?
    {
        kernels.insert(Kernel::Main, program);
    }
    for program in workspace.build_bare("faultline-test-kernels", None, Profile::Release, DebugInfo::Lines)? {
        // Names live as long as the tests, which is as long as the process.
        kernels.insert(Kernel::Test(program.name.clone().leak()), program);
    }
    Ok(kernels)
}

/// `cargo test` has built it by now, unless only this package is tested.
fn build_runner(workspace: &Workspace) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(3).context("this program is in no target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(workspace.root())
        .args(["build", "--quiet", "-p", "faultline", "--target-dir"])
        .arg(target);
    if !command.status().context("cargo does not start")?.success() {
        bail!("the runner could not be built");
    }
    Ok(target.join("debug/faultline"))
}

fn boot(case: &Case, built: &Built) -> Result<(), Failed> {
    let (_shared, _alone);
    // A test that failed by a panic does no harm to the others.
    if case.alone {
        _alone = built.quiet.write();
    } else {
        _shared = built.quiet.read();
    }
    let output = Output::default();
    let result = start(case, built, output.clone()).and_then(|session| case.judge(session));
    result.map_err(|why| {
        let console = end_of(&output.console.text());
        let mut text = format!("{why:#}\n---- console ----\n{console}");
        let exec = end_of(&output.exec.text());
        if !exec.is_empty() {
            text.push_str(&format!("\n---- output of the command ----\n{exec}"));
        }
        Failed::from(text + "\n---- end ----")
    })
}

fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

fn start(case: &Case, built: &Built, output: Output) -> Result<Session> {
    let setup = (case.setup)();
    let kernel =
        built.kernels.get(&case.kernel).with_context(|| format!("there is no kernel {:?}", case.kernel))?;
    let boot = image::pack(&built.workspace, &built.image_tool, kernel, Profile::Release, setup.firmware)?;
    let folder =
        tempfile::Builder::new().prefix("disks-").tempdir_in(built.workspace.target_folder("disks")?)?;
    let disks =
        setup.disks.iter().enumerate().map(|(index, disk)| disk.make(folder.path(), &format!("disk{index}")));
    let mut disks = disks.collect::<Result<Vec<_>>>()?;
    disks.extend(built.programs.clone().filter(|_| setup.programs));
    disks.extend(setup.swap.map(|swap| swap.make(folder.path(), "swap")).transpose()?);
    let config = MachineConfig {
        ovmf: if setup.firmware == Firmware::Uefi { Some(host::ovmf()?) } else { None },
        memory_mib: setup.memory_mib,
        cpus: setup.cpus,
        accelerator: if setup.icount { Accelerator::Tcg } else { built.accelerator },
        disks,
        icount: setup.icount,
        qmp: true,
        cmdline: format!("test={} storm={} {}", case.name, built.storm, setup.cmdline).trim_end().to_owned(),
        exec: setup.exec,
        console: setup.console,
        trace: setup.trace || std::env::var_os("FAULTLINE_TRACE").is_some(),
        ..MachineConfig::new(boot)
    };
    Session::start(&config, folder, output, case.limit * built.storm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl Iterator<Item = String> {
        line.split(' ').map(str::to_owned)
    }

    #[test]
    fn a_storm_is_asked_for_by_word_or_environment() {
        assert_eq!(storm_factor(words("guest nmi"), None).0, 1);
        assert_eq!(storm_factor(words("guest nmi"), Some("1".into())).0, STORM_FACTOR);
        assert_eq!(storm_factor(words("guest nmi"), Some("3".into())).0, 3);
        let (factor, rest) = storm_factor(words("guest --storm nmi"), None);
        assert_eq!((factor, rest.join(" ").as_str()), (STORM_FACTOR, "guest nmi"));
    }

    #[test]
    fn only_what_is_asked_for_makes_a_build_necessary() {
        let asked = |line: &str, name| is_asked(&Arguments::from_iter(words(line)), name);
        assert!(asked("guest", "nmi_storm"));
        assert!(asked("guest nmi", "nmi_storm"));
        assert!(!asked("guest ticks", "nmi_storm"));
        assert!(!asked("guest --exact nmi", "nmi_storm"));
        assert!(!asked("guest --skip nmi", "nmi_storm"));
    }
}
