//! What is no record, and what a record does not fit.
use super::*;
use crate::disk::{Disk, DiskSpec};
use crate::image::BootImage;

/// A folder with a kernel and a disk, the machine of both, and a whole record of a run of it.
fn recorded() -> (tempfile::TempDir, MachineConfig, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let boot = BootImage { image: at("kernel.img", "a kernel"), symbols: at("kernel.elf", "") };
    let disks = vec![Disk::check("disk0", DiskSpec::read_only(at("disk", "some bytes"))).unwrap()];
    let config = MachineConfig { exec: Some("hash".into()), disks, ..MachineConfig::new(boot) };
    let log = at("run", "what came from outside");
    let words = ["faultline", "--record", "run", "--exec", "hash", "--smp", "1"].map(OsString::from);
    let cli = Cli::try_read(words).unwrap();
    Recording::begin(&log, &cli, &config, "7.2.0").unwrap().keep(Outcome::Status(0)).unwrap();
    (folder, config, log)
}

#[track_caller]
fn refuses(result: Result<()>, part: &str) {
    let why = format!("{:#}", result.expect_err(part));
    assert!(why.contains(part), "{why}");
}

#[test]
fn the_machine_of_the_record_is_known_again() {
    let (_folder, config, log) = recorded();
    let record = Record::open(&log).unwrap();
    record.check(&config, "7.2.0").unwrap();
    assert!(!record.has_console());
}

#[test]
fn another_machine_is_refused_with_what_differs() {
    let (folder, config, log) = recorded();
    let record = Record::open(&log).unwrap();
    refuses(record.check(&config, "8.0.0"), "made by QEMU 7.2.0, and this is 8.0.0");
    let other = MachineConfig { exec: Some("ps".into()), ..config.clone() };
    refuses(record.check(&other, "7.2.0"), "another file `exec` for the kernel");
    let fewer = MachineConfig { disks: Vec::new(), ..config.clone() };
    refuses(record.check(&fewer, "7.2.0"), "another file `disks` for the kernel");
    fs::write(folder.path().join("disk"), "same bytes").unwrap();
    refuses(record.check(&config, "7.2.0"), "another disk disk0 (");
    fs::write(folder.path().join("disk"), "some bytes").unwrap();
    fs::write(folder.path().join("kernel.img"), "A kernel").unwrap();
    refuses(record.check(&config, "7.2.0"), "another kernel image");
}

#[test]
fn what_is_no_record_is_refused() {
    let (folder, _, log) = recorded();
    let open = |path: &Path| Record::open(path).map(drop);
    refuses(open(&folder.path().join("none")), "there is no record");
    refuses(open(&folder.path().join("disk")), "is no record of a run that has ended");
    fs::write(beside(&log), "{\"kind\":\"another\"}").unwrap();
    refuses(open(&log), "is no record of a run that has ended");
    fs::write(beside(&log), "not json").unwrap();
    refuses(open(&log), "is no record of a run that has ended");
}

#[test]
fn a_record_that_has_changed_is_refused() {
    let (_folder, _, log) = recorded();
    fs::write(&log, "what came from outsid").unwrap();
    refuses(Record::open(&log).map(drop), "has changed since it was made");
}

#[test]
fn a_record_that_has_begun_anew_is_none_until_it_is_kept() {
    let (_folder, config, log) = recorded();
    let cli = Cli::try_read(["faultline", "--record", "run"].map(OsString::from)).unwrap();
    let recording = Recording::begin(&log, &cli, &config, "7.2.0").unwrap();
    refuses(Record::open(&log).map(drop), "is no record of a run that has ended");
    recording.keep(Outcome::Status(0)).unwrap();
    Record::open(&log).unwrap();
}

#[test]
fn a_record_touches_no_file_but_its_own_two() {
    let (folder, config, log) = recorded();
    let cli = Cli::try_read(["faultline", "--record", "run"].map(OsString::from)).unwrap();
    let others = [folder.path().join("run.json.new"), folder.path().join("run.new")];
    others.iter().for_each(|other| fs::write(other, "another's").unwrap());
    let before = fs::read_dir(folder.path()).unwrap().count();
    Recording::begin(&log, &cli, &config, "7.2.0").unwrap().keep(Outcome::Status(0)).unwrap();
    assert!(others.iter().all(|other| fs::read(other).unwrap() == b"another's"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
    fs::write(beside(&log), "{\"name\":\"package\"}").unwrap();
    refuses(Recording::begin(&log, &cli, &config, "7.2.0").map(drop), "is not of a record");
    assert_eq!(fs::read(beside(&log)).unwrap(), b"{\"name\":\"package\"}");
}

#[test]
fn a_replay_ends_as_the_run_did_that_was_stopped() {
    let (_folder, config, log) = recorded();
    let cli = Cli::try_read(["faultline", "--record", "run"].map(OsString::from)).unwrap();
    let replayed = |recorded, replayed| {
        Recording::begin(&log, &cli, &config, "7.2.0").unwrap().keep(recorded).unwrap();
        Record::open(&log).unwrap().outcome(replayed)
    };
    for stopped in [Outcome::TimedOut(200), Outcome::Interrupted(2)] {
        assert_eq!(replayed(stopped, Outcome::Reset), stopped);
        // The replay's own time limit, and signals to it.
        assert_eq!(replayed(stopped, Outcome::TimedOut(9)), Outcome::TimedOut(9));
        assert_eq!(replayed(stopped, Outcome::Interrupted(15)), Outcome::Interrupted(15));
    }
    for ended in [Outcome::Status(3), Outcome::Reset, Outcome::Panicked] {
        assert_eq!(replayed(ended, Outcome::Reset), Outcome::Reset);
    }
    assert_eq!(replayed(Outcome::Panicked, Outcome::Panicked), Outcome::Panicked);
}
