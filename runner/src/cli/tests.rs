//! What may be said together, and what may not.
use super::*;

fn read(line: &str) -> Result<Cli> {
    let args = std::iter::once("faultline").chain(line.split_whitespace());
    Cli::from_matches(&Cli::command().try_get_matches_from(args)?)
}

#[test]
fn a_debugger_is_started_or_told_of() {
    assert_eq!(read("").unwrap().gdb, None);
    assert_eq!(read("--gdb --exec ps").unwrap().gdb, Some(Debugger::Start));
    assert_eq!(read("--gdb=wait").unwrap().gdb, Some(Debugger::Wait));
    assert!(read("--gdb=later").is_err());
    assert!(read("--record run --gdb").is_err());
    assert_eq!(read("--replay run --gdb").unwrap().gdb, Some(Debugger::Start));
}

#[test]
fn the_declaration_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn options_about_disks_belong_to_the_disk_named_last() {
    let cli = read("--disk a --disk-iops 10 --disk-ro b --disk-fail 7 --disk-fail 20,8 --disk c").unwrap();
    let a = DiskSpec { path: "a".into(), iops: Some(10), ..DiskSpec::default() };
    let b = DiskSpec { failing: vec![7..8, 20..28], ..DiskSpec::read_only("b") };
    let c = DiskSpec { path: "c".into(), ..DiskSpec::default() };
    assert_eq!(cli.disks, [a, b, c]);
}

#[test]
fn options_about_no_disk_are_refused() {
    for (line, part) in [
        ("--disk-iops 10", "--disk-iops needs a --disk"),
        ("--disk-iops 10 --disk a", "--disk-iops needs a --disk"),
        ("--disk-fail 1", "--disk-fail needs a --disk"),
        ("--disk a --disk-iops 10 --disk-iops 20", "twice for a"),
        ("--disk a --disk-fail 0,1000 --disk-fail 2000,25", "at most 1024"),
    ] {
        let why = read(line).expect_err(line).to_string();
        assert!(why.contains(part), "{line}: {why}");
    }
}

#[test]
fn nonsense_is_a_usage_error() {
    for line in [
        "--memory 0",
        "--memory many",
        "--memory 1T",
        "--memory 64G",
        "--smp 0",
        "--smp 65",
        "--timeout 0",
        "--accel fast",
        "--bios --uefi",
        "--headless --display",
        "--disk",
        "--disk a --disk-iops 0",
        "--disk a --disk-fail x",
        "--disk a --disk-fail 1,0",
        "--disk a --disk-fail 18446744073709551615,9",
        "--exec help --console",
        "--vmscript",
        "--vmscript a --exec help",
        "--vmscript a --console",
        "--example",
        "--example a --exec help",
        "--example a --kernel-bin b",
        "--screenshot",
        "--record a --replay b",
        "--record a --icount",
        "--record a --trace b",
        "--replay a --exec help",
        "--replay a --smp 1",
        "--replay a --release",
        "--debug --release",
        "--replay a --log info",
        "--replay a --disk b",
        "--replay a -- -d int",
        "doctor --uefi",
        "--uefi doctor",
        "surprise",
    ] {
        assert!(read(line).is_err(), "{line}");
    }
}

#[test]
fn a_recorded_machine_has_one_processor_unless_told_otherwise() {
    assert_eq!(read("").unwrap().cpus(None), 4);
    assert_eq!(read("--record a").unwrap().cpus(None), 1);
    assert_eq!(read("--replay a").unwrap().cpus(None), 1);
    assert_eq!(read("--record a --smp 2").unwrap().cpus(None), 2);
    assert!(read("--replay a --timeout 9 --screenshot b").is_ok());
}

#[test]
fn what_is_counted_is_optimised_across_crates() {
    let profile = |line| read(line).unwrap().profile();
    assert_eq!(profile("--release"), Profile::Release);
    assert_eq!(profile("--icount"), Profile::Release);
    assert_eq!(profile("--icount --debug"), Profile::Debug);
    assert_eq!(profile("--record a"), if cfg!(debug_assertions) { Profile::Quick } else { Profile::Release });
}

#[test]
fn sizes_are_read_in_mebibytes() {
    assert_eq!(memory("64M"), Ok(64));
    assert_eq!(memory("64"), Ok(64));
    assert_eq!(memory("2g"), Ok(2048));
    assert!(memory("31M").is_err());
    assert!(memory("M").is_err());
    assert!(memory("").is_err());
}

#[test]
fn the_kernel_is_told_what_to_log() {
    assert_eq!(read("--cmdline a=b --log info,mm=trace").unwrap().kernel_cmdline(), "a=b log=info,mm=trace");
    assert_eq!(read("--log debug").unwrap().kernel_cmdline(), "log=debug");
    assert_eq!(read("--cmdline a=b").unwrap().kernel_cmdline(), "a=b");
    let nine = format!("--log {}", ["m=off"; 9].join(","));
    for (line, why) in [
        ("--log=", "it is a list like mm=trace,info"),
        ("--log loud", "it is a list like mm=trace,info"),
        ("--log mm=loud", "with off, error, warn, info, debug or trace"),
        ("--log =info", "a module's name has 1 to 32 characters"),
        (&nine, "at most 8 modules can be named"),
    ] {
        let said = read(line).expect_err(line).to_string();
        assert!(said.contains(why), "{line}: {said}");
    }
    for twice in ["--cmdline log=off --log trace", "--log trace --cmdline=log=off"] {
        let why = read(twice).expect_err(twice).to_string();
        assert_eq!(why, "what is logged is said twice: by --log, and by log= in --cmdline");
    }
    assert!(read("--cmdline catalog=a --log trace").is_ok());
}

#[test]
fn what_follows_two_dashes_is_for_qemu() {
    let cli = read("--smp 2 -- -d int").unwrap();
    assert_eq!(cli.qemu_args, ["-d", "int"]);
    assert_eq!(read("doctor").unwrap().task, Some(Task::Doctor));
}
