//! Files that a run must not write over.
use std::ffi::OsString;

use tempfile::TempDir;

use super::*;

/// A folder with a disk, a folder, and a pipe.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("disk"), "bytes").unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
    assert!(pipe.success());
    folder
}

/// Looks at the outputs of a run in `folder`, whose files the words name after an `@`.
fn looked_at(folder: &TempDir, line: &str) -> Result<()> {
    let word = |word: &str| match word.strip_prefix('@') {
        Some(name) => format!("{}/{name}", folder.path().display()).into(),
        None => OsString::from(word),
    };
    let words = std::iter::once("faultline").chain(line.split(' ')).map(word);
    check(&Cli::try_read(words).unwrap())
}

#[track_caller]
fn refused(folder: &TempDir, line: &str, part: &str) {
    let why = format!("{:#}", looked_at(folder, line).expect_err(line));
    assert!(why.contains(part), "{line}: {why}");
}

#[test]
fn files_of_their_own_are_fine_and_not_made() {
    let folder = folder();
    fs::write(folder.path().join("a.png"), "an older picture").unwrap();
    for line in [
        "--trace @trace.json --screenshot @a.png --disk @disk",
        "--record @run --screenshot @a.png --swap @swap",
        "--record @disk.img --disk @disk",
        "--replay @run --screenshot @a.png",
    ] {
        looked_at(&folder, line).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

#[test]
fn a_file_of_the_machine_is_not_written_over_by_any_path_to_it() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("run.json"), "{\"kind\":\"faultline-record-1\"}").unwrap();
    fs::write(at("run"), "a log").unwrap();
    fs::hard_link(at("disk"), at("other-name")).unwrap();
    std::os::unix::fs::symlink("disk", at("link")).unwrap();
    for line in [
        "--disk @disk --trace @disk",
        "--disk @disk --screenshot @folder/../disk",
        "--disk @disk --record @other-name",
        "--disk-ro @disk --trace @link",
        "--vmscript @disk --trace @disk",
        "--swap @swap --screenshot @folder/../swap",
        "--disk @run.json --record @run",
        "--replay @run --screenshot @run",
        "--replay @run --screenshot @run.json",
    ] {
        refused(&folder, line, "would overwrite it");
    }
}

#[test]
fn two_outputs_are_two_files() {
    let folder = folder();
    for (line, part) in [
        ("--trace @a --screenshot @a", "a cannot be both the trace and the screenshot"),
        ("--record @a --screenshot @folder/../a", "a cannot be both the screenshot and the record"),
        (
            "--record @run --screenshot @run.json",
            "run.json cannot be both the screenshot and the record's description",
        ),
    ] {
        refused(&folder, line, part);
    }
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
    let folder = folder();
    for option in ["--trace", "--screenshot", "--record"] {
        refused(&folder, &format!("{option} @pipe"), "pipe is not a regular file, and the ");
        refused(&folder, &format!("{option} @folder"), "folder is a folder: the ");
    }
    fs::rename(folder.path().join("pipe"), folder.path().join("run.json")).unwrap();
    refused(&folder, "--record @run", "run.json is not a regular file");
}

#[test]
fn a_path_without_a_file_name_is_refused() {
    let folder = folder();
    for path in ["@a.png/", "@a.png/.", "@none/..", "@disk/"] {
        refused(&folder, &format!("--screenshot {path}"), "ends without the name of a file");
    }
    refused(&folder, "--trace @none/a", "cannot write ");
    refused(&folder, "--trace @disk/a", "cannot write ");
}

#[test]
fn a_record_replaces_the_description_of_another_one_only() {
    let folder = folder();
    let place = folder.path().join("package.json");
    for other in ["{\"name\":\"package\"}", "", "[]", "{\"kind\":\"another\"}"] {
        fs::write(&place, other).unwrap();
        refused(&folder, "--record @package", "package.json is not of a record");
        assert_eq!(fs::read_to_string(&place).unwrap(), other);
    }
    fs::write(&place, "{\"kind\":\"faultline-record-0\"}").unwrap();
    looked_at(&folder, "--record @package").unwrap();
}
