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
