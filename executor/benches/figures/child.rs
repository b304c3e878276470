//! One workload with one executor, in a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};

use crate::meter::{Meter, Mode};
use crate::{Case, What, cases};

/// How often the time is taken.
const RUNS: usize = 7;

/// The child's side: runs the case with this number.
pub(crate) fn run(number: &str, mode: &str) -> ExitCode {
    let case = number.parse().ok().and_then(|number| cases().nth(number));
    let Some(Case { workload, what: What::Run(run), .. }) = case else {
        eprintln!("there is no workload {number}");
        return ExitCode::FAILURE;
    };
    let n = workload.facts().1;
    let once = |mode, n| {
        let mut meter = Meter::new(mode);
        run(&mut meter, n);
        meter.time
    };
    // As much as is measured: what is kept for later then has its full size.
    once(Mode::Warm, 2 * n);
    if mode == "count" {
        once(Mode::Count, n);
        once(Mode::Count, 2 * n);
    } else {
        let best = (0..RUNS).map(|_| once(Mode::Time, 2 * n)).min().unwrap_or_default();
        println!("{}", best.as_nanos() as f64 / (2 * n) as f64);
    }
    ExitCode::SUCCESS
}

/// Nanoseconds of an operation.
pub(crate) fn time(number: usize) -> Result<f64, String> {
    let output = output(Command::new(this()?).args(["--child", &number.to_string(), "time"]))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| format!("no time was printed but {text:?}"))
}

/// Instructions of an operation. Callgrind's files stay in `keep`, if it is given.
pub(crate) fn count(number: usize, case: &Case, keep: Option<&Path>) -> Result<f64, String> {
    let folder = keep.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let name = format!("{}-{}", case.who.name(), case.workload.name()).replace(' ', "-");
    let name = if keep.is_some() { name } else { format!("figures-{}-{name}", std::process::id()) };
    let file = folder.join(name);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(this()?).args(["--child", &number.to_string(), "count"]);
    let counted = output(&mut command);
    // The file of each measured piece has a number behind its name; the one without is for the process's end.
    let [rest, one, two] = ["", ".1", ".2"].map(|suffix| {
        let mut name = file.clone().into_os_string();
        name.push(suffix);
        name
    });
    let instructions = counted.and_then(|_| Ok(instructions(one.as_ref())?..instructions(two.as_ref())?));
    let unwanted = if keep.is_some() { vec![rest] } else { vec![rest, one, two] };
    for file in unwanted {
        // It is not there if valgrind has failed.
        let _ = fs::remove_file(file);
    }
    let range = instructions?;
    Ok((range.end as f64 - range.start as f64) / case.workload.facts().1 as f64)
}

fn instructions(file: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.ok_or_else(|| format!("{}: callgrind has counted nothing", file.display()))
}

fn this() -> Result<std::path::PathBuf, String> {
    std::env::current_exe().map_err(|error| error.to_string())
}

fn output(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        format!("{} cannot be started ({error}); ./setup.sh installs it", command.get_program().display())
    })?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{command:?} has failed: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
