//! gdb at the machine: the breakpoint at the kernel's entry, the commands that know the kernel's structures, and the way
//! backwards through a run that was recorded.
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use faultline::host;
use faultline_tests::TestDisk;
use faultline_tests::suite::{Built, RunnerTest};

/// What the helpers are asked, while the machine stands still: all four commands, of two pages of the disk that the
/// console's `hash` maps, of the stack of a program, and of an address where nothing is.
const QUESTIONS: &str = r#"
fl-tasks
fl-threads
fl-requests
python
import re
fl_requests = gdb.execute("fl-requests", to_string=True)
loading = int(re.search(r"Loading: pages (\d+)", fl_requests).group(1))
space = arc(field(once(static("kernel::memory::KERNEL_SPACE")), "space"))
def shows_disk0(mapping):
    kind, shows = variant(field(mapping, "shows"))
    return kind == "Shared" and object_text(shows["__0"]) == "the object of disk0"
mappings = ordered_values(field(locked(field(space, "mappings")), "by_start"))
start = [number(field(mapping, "start")) for mapping in mappings if shows_disk0(mapping)][0]
print("page 0, then one that is loading:")
gdb.execute("fl-pages %#x" % start)
gdb.execute("fl-pages %#x" % (start + 4096 * loading))
program = [thread for thread in threads() if text(field(thread, "name")) == "spin-calls"][0]
stack = int(field(field(program, "context.value"), "rsp"))
print("the program's stack, then its code, then nothing:")
gdb.execute("fl-pages %#x %d" % (stack, number(field(program, "id"))))
code = int(field(field(program, "context.value"), "rip"))
gdb.execute("fl-pages %#x %d" % (code, number(field(program, "id"))))
gdb.execute("fl-pages 0xffffcfff00000000")
try:
    gdb.execute("kill")
except gdb.error:
    pass # the machine may have ended before it has answered
end
"#;

/// From a panic backwards: by an instruction, by a line, to a breakpoint twice, to the one that changed a number of the
/// kernel's, and to the beginning; and forwards again, to the same places.
const BACKWARDS: &str = r#"
set pagination off
set confirm off
hbreak kernel::panic::leave
continue
python
import re
def now():
    return int(re.search(r"instruction count = (\d+)", gdb.execute("monitor info replay", to_string=True)).group(1))
def here():
    return int(gdb.parse_and_eval("$rip")), now()
def tell(what, is_so):
    print("%s: %s" % (what, "yes" if is_so else "NO"))
def backtrace():
    return gdb.execute("bt", to_string=True)

panic = here()
gdb.execute("reverse-stepi")
tell("one instruction back", now() == panic[1] - 1 and here() != panic)
gdb.execute("stepi")
tell("and forth", here() == panic)
gdb.execute("reverse-step")
tell("a line back", now() < panic[1] and "panic" in backtrace())

counters = field(arc(field(arc(field(disks()[0], "device")), "desk")), "counters")
errors = field(counters, "errors")
tell("the disk has failed", number(errors) > 0)
gdb.execute("watch *(%#x as *mut u64)" % int(errors.address))
failures = number(errors)
gdb.execute("reverse-continue")
tell("who counted the failure", "drivers::virtio" in backtrace())
tell("just when it was counted", number(errors) == failures)
gdb.execute("reverse-stepi")
tell("just before", number(errors) == failures - 1)
failed = now()
gdb.execute("delete")

gdb.execute("hbreak kernel::thread::run::serve_fault_at_once")
gdb.execute("reverse-continue")
late = here()
tell("a fault before the failure", late[1] < failed)
gdb.execute("fl-mark")
gdb.execute("reverse-continue")
early = here()
tell("one before that", early[1] < late[1] and early[0] == late[0])
gdb.execute("continue")
tell("the later one again", here() == late)
gdb.execute("delete")
gdb.execute("reverse-continue")
tell("the beginning", now() == 0)
try:
    gdb.execute("continue")
except gdb.error:
    pass # the machine ends without a word to gdb
end
"#;

/// The tests of `--gdb`.
pub(crate) fn tests() -> Vec<RunnerTest> {
    vec![
        ("gdb_stops_at_the_kernels_entry_and_knows_its_structures", helpers),
        ("gdb_goes_backwards_through_a_replay", backwards),
        ("gdb_has_the_runners_terminal", in_the_terminal),
        ("gdb_that_is_not_installed_is_told_with_the_line_to_type", not_installed),
    ]
}

/// Ends the runner with the test, however that ends.
struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gdb(script: &Path) -> Result<String> {
    let gdb =
        host::in_path("gdb").context("there is no gdb, which this test needs: ./setup.sh installs it")?;
    let mut command = Command::new(gdb);
    command.args(["-q", "-nx", "-batch", "-x"]).arg(script).stdin(Stdio::null());
    let output = command.output().context("gdb does not start")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "gdb: {}\n{text}\n---- stderr ----\n{errors}", output.status);
    ensure!(!errors.contains("rror"), "gdb: {errors}\n{text}");
    Ok(text)
}

/// Reads lines until one has this text, and returns that.
fn line_with(lines: &mut impl Iterator<Item = std::io::Result<String>>, part: &str) -> Result<String> {
    for line in lines {
        let line = line?;
        if line.contains(part) {
            return Ok(line);
        }
    }
    bail!("the machine has ended before it printed {part:?}")
}

/// Threads hash a slow disk, a program spins: the machine is stopped twice, and ended by gdb.
fn helpers(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    TestDisk::offsets(4 << 20).make(folder.path(), "disk0")?;
    let disk = std::fs::read_dir(folder.path())?.next().context("a disk")??.path();
    // All of them together are busy for much longer than gdb takes to come.
    let spinning = "run spin-calls & ".repeat(64);
    // Page 0 is there before the others are asked for.
    let commands = format!("hash --length 4096; {spinning} hash --threads 4 & ticks 1; ticks 3000");
    let mut command = Command::new(&built.runner);
    command
        .args([
            "--gdb=wait",
            "--accel",
            "tcg",
            "--smp",
            "2",
            "--log",
            "error",
            "--timeout",
            "300",
            "--disk-ro",
        ])
        .arg(&disk);
    command.args(["--disk-iops", "1", "--exec", &commands]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut runner = Runner(command.spawn().context("the runner does not start")?);
    let mut errors = BufReader::new(runner.0.stderr.take().context("it is piped")?).lines();
    let mut output = BufReader::new(runner.0.stdout.take().context("it is piped")?).lines();

    let line = line_with(&mut errors, "in another terminal")?;
    let script = line.rsplit_once(" -x ").context("the line to type")?.1.to_owned();
    let first = gdb(Path::new(&script))?;
    ensure!(first.contains("hit Temporary breakpoint 1, ") && first.contains("__impl_start ("), "{first}");

    line_with(&mut output, "worst")?;
    let commands = std::fs::read_to_string(&script)?;
    let attach = commands.lines().filter(|line| !line.starts_with("thbreak") && *line != "continue");
    let again = folder.path().join("again");
    std::fs::write(&again, attach.collect::<Vec<_>>().join("\n") + QUESTIONS)?;
    let told = gdb(&again)?;

    let count =
        |parts: &[&str]| told.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    for (parts, expected) in [
        (&[" reclaim ", " waiting ", "notify since "][..], 1),
        (&[" virtio-blk ", "block io since "], 2),
        (&["thread ", " hash: parked for page since ", " faults"], 4),
        (&["    #0 0xffffffff8", "(core/src/"], 4),
        (&["kernel::console::commands::hash::start::"], 4),
        (&["kernel::thread::spawn::first_instruction"], 4),
        (&["programs: 0 requests under way, "], 1),
        (&[" (r): page 0 of the object of disk0: Loaded, frame 0x"], 1),
        (&["of the object of disk0: Loading"], 1),
        (&["(rwu): page ", " of private memory: Dirty, frame 0x"], 1),
        (&["(rxu): page ", " of object ", ": Loaded, frame 0x"], 1),
        (&["nothing is mapped there"], 1),
    ] {
        ensure!(count(parts) == expected, "{} times {parts:?}, not {expected}, in\n{told}", count(parts));
    }
    let under_way = told.lines().find(|line| line.starts_with("disk0: ")).context("no disk0")?;
    ensure!(!under_way.starts_with("disk0: 0 "), "{told}");
    // What the tables show is what the object says of the page.
    let page = told.split_once("page 0, then").and_then(|(_, page)| page.split_once("level 1, entry "));
    let (_, page) = page.and_then(|(_, page)| page.split_once(": frame ")).context("page 0 is shown")?;
    let frame = page.split_whitespace().next().context("its frame")?;
    ensure!(page.contains(&format!("disk0: Loaded, frame {frame}\n")), "{told}");

    let status = runner.0.wait()?;
    let mut rest = String::new();
    for line in errors {
        rest += &line?;
    }
    ensure!(status.success(), "after gdb had ended the machine: {status}: {rest}");
    Ok(())
}

/// What is typed goes to gdb, which stops at the entry first; when it ends the machine, the runner ends.
fn in_the_terminal(built: &Built) -> Result<()> {
    let mut command = Command::new(&built.runner);
    command.args(["--gdb", "--timeout", "300", "--exec", "ticks 3000"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut runner = Runner(command.spawn().context("the runner does not start")?);
    let mut input = runner.0.stdin.take().context("it is piped")?;
    input.write_all(b"echo here: \\n\ninfo symbol $pc\nkill\nquit\n")?;
    drop(input);
    let mut errors = runner.0.stderr.take().context("it is piped")?;
    let rest = std::thread::spawn(move || std::io::read_to_string(&mut errors).unwrap_or_default());
    let told = std::io::read_to_string(runner.0.stdout.take().context("it is piped")?)?;
    let status = runner.0.wait()?;
    let rest = rest.join().expect("it only reads");
    ensure!(status.success(), "after gdb had ended the machine: {status}: {told}\n{rest}");
    let (before, after) = told.split_once("here: ").with_context(|| format!("{told}\n{rest}"))?;
    ensure!(before.contains("hit Temporary breakpoint 1, "), "{told}");
    ensure!(after.contains("_start in section .text"), "{told}");
    Ok(())
}

/// The same machine without gdb: a PATH that leads to everything else.
fn not_installed(built: &Built) -> Result<()> {
    let tools = tempfile::tempdir()?;
    let path = std::env::var_os("PATH").context("a PATH")?;
    for tool in std::env::split_paths(&path).filter_map(|folder| folder.read_dir().ok()).flatten() {
        let tool = tool?;
        if tool.file_name() != "gdb" {
            // Of two with one name the first counts.
            let _ = symlink(tool.path(), tools.path().join(tool.file_name()));
        }
    }
    let mut command = Command::new(&built.runner);
    command.env("PATH", tools.path()).stdin(Stdio::null());
    let output = command.args(["--gdb", "--timeout", "2", "--exec", "ps"]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(103), "nobody lets it go on: {}: {errors}", output.status);
    let told: Vec<&str> = errors.lines().filter(|line| line.contains("gdb")).collect();
    ensure!(told.len() == 2, "{errors}");
    ensure!(told[0] == "faultline: gdb is not installed (./setup.sh installs it)", "{errors}");
    let line = "faultline: the machine waits for gdb; in another terminal: gdb -q -x ";
    ensure!(told[1].starts_with(line) && told[1].ends_with("/gdb.commands"), "{errors}");
    Ok(())
}

/// A run that panics after a disk has failed is recorded, replayed under gdb, walked backwards, and then runs to its end.
fn backwards(built: &Built) -> Result<()> {
    let folder = tempfile::tempdir()?;
    TestDisk::offsets(1 << 20).make(folder.path(), "disk0")?;
    let disk = std::fs::read_dir(folder.path())?.next().context("a disk")??.path();
    let disk = disk.to_str().context("a path of text")?;
    let mut command = Command::new(&built.runner);
    command.current_dir(folder.path()).stdin(Stdio::null());
    command.args(["--record", "run", "--disk-ro", disk, "--disk-iops", "400", "--disk-fail", "1000"]);
    let recorded = command.args(["--swap", "swap", "--exec", "hash --threads 2; panic"]).output()?;
    ensure!(recorded.status.code() == Some(101), "{}", String::from_utf8_lossy(&recorded.stderr));

    let mut command = Command::new(&built.runner);
    command.current_dir(folder.path()).args(["--replay", "run", "--gdb=wait", "--timeout", "300"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut runner = Runner(command.spawn().context("the runner does not start")?);
    let mut errors = BufReader::new(runner.0.stderr.take().context("it is piped")?).lines();
    let line = line_with(&mut errors, "in another terminal")?;
    let script = std::fs::read_to_string(line.rsplit_once(" -x ").context("the line to type")?.1)?;
    let rest = std::thread::spawn(move || errors.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    let walk = folder.path().join("walk");
    std::fs::write(&walk, script + BACKWARDS)?;
    let told = gdb(&walk)?;
    ensure!(!told.contains(": NO") && told.matches(": yes").count() == 11, "{told}");
    ensure!(told.matches("marked: instruction ").count() == 2, "{told}");
    let status = runner.0.wait()?;
    let rest = rest.join().expect("it only reads");
    ensure!(status.code() == Some(101), "after gdb had let it go on: {status}: {rest}");
    Ok(())
}
