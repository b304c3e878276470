//! Each scenario of `scenarios/` and of `docs/vmscript.md` has the answers that stand beside it.

use std::fs;
use std::path::Path;

use mm_simulator::script::play;

/// What a scenario answers.
fn answers(script: &[u8]) -> String {
    let mut answers = Vec::new();
    play(script, &mut answers).expect("memory can be written");
    String::from_utf8(answers).expect("answers are text")
}

fn check(name: &str, script: &str, expected: &str) {
    let answers = answers(script.as_bytes());
    let mut lines = answers.lines().zip(expected.lines());
    if let Some(at) = lines.position(|(answer, expected)| answer != expected) {
        panic!("{name}: line {} of the answers differs\nanswers:\n{answers}\nexpected:\n{expected}", at + 1);
    }
    assert_eq!(answers, expected, "{name}");
}

#[test]
fn scenarios_have_the_answers_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut scripts: Vec<_> = fs::read_dir(folder)
        .expect("there are scenarios")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "vms"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 14, "scenarios are missing");
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kernels/src/vmscript.rs");
    let kernel = fs::read_to_string(kernel).expect("there is a test of the kernel");
    for path in scripts {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(kernel.contains(&format!("    \"{name}\",\n")), "{name} is not played in the kernel");
        let read =
            |path: &Path| fs::read_to_string(path).unwrap_or_else(|_| panic!("{} is there", path.display()));
        check(&path.display().to_string(), &read(&path), &read(&path.with_extension("out")));
    }
}

#[test]
fn the_scenarios_of_the_manual_have_the_answers_that_it_says() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vmscript.md");
    let manual = fs::read_to_string(manual).expect("there is a manual");
    // Each line is `command  # -> answer`, several answers one below the other.
    let mut scenarios = 0;
    for (number, block) in manual.split("```vmscript\n").skip(1).enumerate() {
        let block = block.split("```").next().expect("a block has an end");
        let (mut script, mut expected) = (String::new(), String::new());
        for line in block.lines() {
            let (command, answer) = line.split_once("# -> ").unwrap_or((line, ""));
            script += &format!("{command}\n");
            if !answer.is_empty() {
                expected += &format!("{answer}\n");
            }
        }
        check(&format!("scenario {} of the manual", number + 1), &script, &expected);
        scenarios += 1;
    }
    assert_eq!(scenarios, 2);
}

#[test]
fn lines_end_and_are_wrong_in_any_way() {
    assert_eq!(answers(b"ram 1\r\n\t \r\n# \xff\nfile \xff 1\nfile A 1"), "ok\nerror syntax\nok\n");
    assert_eq!(answers(b""), "");
    assert_eq!(answers(&[0; 100]), "error syntax\n");
    let long = [b"go a ".repeat(100_000), b"show\n".to_vec()].concat();
    assert_eq!(answers(&long), "error syntax\n");
}

#[test]
fn only_wrong_lines_make_a_scenario_wrong() {
    let wrong = |script: &str| play(script.as_bytes(), Vec::new()).expect("memory can be written");
    assert!(!wrong("ram 1\nfile A 1\nmap M A 0 1\nread M 1\nunmap M\nunmap M\nhold A\n"));
    assert!(wrong("ram 1\nfile A 1\nread M 1\nfile B 1\n"));
}

#[test]
fn as_many_names_as_wanted_have_a_place_that_may_grow() {
    let names = 1200;
    let mut script = String::from("ram 8\nfile A 4\n");
    (0..names).for_each(|name| script += &format!("map M{name} A 1 1\nread M{name} 0\n"));
    let expected = "ok\nok\n".to_owned() + &"ok\nvalue 1\n".repeat(names);
    assert!(answers(script.as_bytes()) == expected);
    // Larger than its place: it gets another, and keeps the old one where it is still mapped.
    let script = "ram 8\nmap M anon 1\nwrite M 0 5\nfork main B\nunmap M\nmap M anon 16000000\nread M 0\n\
        write M 15999999 1\nread M 16000000\nin B read M 0\nin B read M 1\nin B unmap M\nin B read M 0\nread M 15999999\n";
    let expected = "ok\nok\nok\nok\nok\nok\nvalue 0\nok\nfault mapping\nvalue 5\nfault mapping\nok\nfault mapping\n\
        value 1\n";
    assert_eq!(answers(script.as_bytes()), expected);
}

#[test]
fn what_there_are_no_tables_for_is_an_error_and_the_player_goes_on() {
    let mut script = String::from("ram 8\nmap M anon 1\nwrite M 0 1\n");
    // Four tables each, and then one.
    (0..250).for_each(|space| script += &format!("fork main S{space}\nin S{space} read M 0\n"));
    (250..300).for_each(|space| script += &format!("fork main S{space}\n"));
    script += "read M 0\n";
    let answers = answers(script.as_bytes());
    assert!(answers.lines().all(|answer| matches!(answer, "ok" | "error memory" | "value 1")));
    assert!(answers.contains("error memory") && answers.ends_with("value 1\n"));
}
