//! Random scenarios: never a panic, one line for each command, twice the same answers, and no frame lost.

use mm_simulator::script::Host;
use proptest::prelude::*;
use proptest::sample::select;
use vmscript::Player;

/// The answers of each line.
fn play(script: &[String]) -> Vec<Vec<String>> {
    let mut player = Player::new(Host::default());
    let mut play_line = |line: &String| {
        let mut answers = Vec::new();
        player.play(line.as_bytes(), |answer| answers.push(answer.to_owned()));
        answers
    };
    script.iter().map(&mut play_line).collect()
}

fn words(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(str::to_owned)
}

/// Commands that are mostly right, about few things.
fn command() -> impl Strategy<Value = String> {
    let file = || words(&["A", "A", "A", "B"]);
    let mapping = || words(&["M", "M", "N", "P", "Q", "R"]);
    let block = || 0u64..6;
    prop_oneof![
        8 => (mapping(), block()).prop_map(|(m, page)| format!("read {m} {page}")),
        8 => (mapping(), block(), 1u64..9).prop_map(|(m, page, value)| format!("write {m} {page} {value}")),
        1 => (mapping(), file(), 0u64..3, 1u64..5, words(&["", " private"]))
            .prop_map(|(m, f, first, pages, kind)| format!("map {m} {f} {first} {pages}{kind}")),
        1 => (mapping(), 1u64..4).prop_map(|(m, pages)| format!("map {m} anon {pages}")),
        1 => mapping().prop_map(|m| format!("unmap {m}")),
        4 => (words(&["store", "mark", "storemark", "discard", "heal", "hold", "release", "log"]), file())
            .prop_map(|(command, f)| format!("{command} {f}")),
        3 => (words(&["invalidate", "release"]), file(), block())
            .prop_map(|(command, f, block)| format!("{command} {f} {block}")),
        1 => (file(), block(), 0u64..99).prop_map(|(f, block, value)| format!("poke {f} {block} {value}")),
        1 => (file(), words(&["load", "store"]), block(), words(&["", " 1", " 2"]))
            .prop_map(|(f, way, block, times)| format!("fail {f} {way} {block}{times}")),
        1 => words(&["reclaim", "reclaim 1", "reclaim 2"]),
        1 => (words(&["main", "X"]), words(&["X", "Y"])).prop_map(|(from, to)| format!("fork {from} {to}")),
        2 => (words(&["join", "kill"]), words(&["s", "t", "u"])).prop_map(|(what, id)| format!("{what} {id}")),
        2 => words(&["show"]),
    ]
}

fn line() -> impl Strategy<Value = String> {
    let thread = prop_oneof![2 => words(&[""]), 1 => words(&["go s ", "go t ", "go u "])];
    let space = prop_oneof![4 => words(&[""]), 1 => words(&["in main ", "in X ", "in Y "])];
    let rubbish = "[a-z]{1,6}( [a-zA-Z0-9/:,.-]{0,3}){0,4}";
    let close = words(&["close B", "close A", "readahead on"]);
    prop_oneof![
        40 => (thread, space, command()).prop_map(|(thread, space, command)| thread + &space + &command),
        1 => close,
        1 => rubbish,
        1 => ".{0,20}",
    ]
}

fn script() -> impl Strategy<Value = Vec<String>> {
    let kind = words(&["", " overlay"]);
    (0u64..6, kind, proptest::collection::vec(line(), 1..80)).prop_map(|(frames, kind, lines)| {
        let mut script = vec![format!("ram {frames}")];
        let start = ["file B 3", "map M A 0 6", "map N A 1 3", "map P anon 3", "map Q A 0 6 private"];
        script.push(format!("file A 6{kind}"));
        script.extend(start.map(str::to_owned));
        script.extend(lines);
        script
    })
}

/// The pages that `show` tells of, but for loads without a frame, with the free frames.
fn frames_told(answers: &[String]) -> u64 {
    let has_frame = |line: &&String| {
        let state = line.split(' ').nth(3);
        line.starts_with("page ") && matches!(state, Some("loaded" | "dirty" | "writeback"))
    };
    let free = answers.iter().find_map(|line| line.strip_prefix("free ")?.parse::<u64>().ok());
    answers.iter().filter(has_frame).count() as u64 + free.expect("show tells what is free")
}

/// Whether a line has a command.
fn has_words(line: &str) -> bool {
    let text = line.split('#').next().unwrap_or_default();
    text.chars().any(|c| !matches!(c, ' ' | '\t' | '\r' | '\n'))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scenarios_have_one_answer_a_line_and_always_the_same(script in script()) {
        let answers = play(&script);
        for (line, answers) in script.iter().zip(&answers) {
            let is_show = line.ends_with("show") && answers.len() > 1;
            let expected = if is_show { answers.len() } else { usize::from(has_words(line)) };
            prop_assert_eq!(answers.len(), expected, "{}", line);
        }
        prop_assert_eq!(play(&script), answers);
    }

    #[test]
    fn at_the_end_all_frames_are_free_or_told_of(script in script()) {
        let mut script = script;
        let frames = script[0].split(' ').nth(1).and_then(|frames| frames.parse::<u64>().ok()).expect("ram N");
        // What lies below an overlay is not told of, and clean.
        let end = ["kill s", "kill t", "kill u", "release A", "release B", "reclaim", "show"];
        script.extend(end.map(str::to_owned));
        let answers = play(&script);
        prop_assert_eq!(frames_told(answers.last().expect("show")), frames, "{:?}", answers.last());
    }
}
