//! The scenarios of the VM core, with real faults.

use alloc::{string::String, sync::Arc};

use executor::lock::SpinLock;
use kernel::{arch::cpu, thread, vmscript};

use crate::check::{Needed as _, Outcome, ensure, in_time};

struct Scenario {
    name: &'static str,
    script: &'static str,
    answers: &'static str,
}

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        &[$(Scenario {
            name: $name,
            script: include_str!(concat!("../../../mm/vmscript/scenarios/", $name, ".vms")),
            answers: include_str!(concat!("../../../mm/vmscript/scenarios/", $name, ".out")),
        }),*]
    };
}

/// All of them: a test of the host looks that none is missing.
const SCENARIOS: &[Scenario] = scenarios![
    "close",
    "commands",
    "dirty",
    "errors",
    "fork",
    "loading",
    "lru",
    "no-frame",
    "no-frames-at-all",
    "places",
    "quota",
    "readahead",
    "readahead-short",
    "threads",
    "overlay",
    "writeback",
    "wrong",
];

/// Every scenario has the answers that it has on the host, and the processor has raised faults.
pub(crate) async fn scenarios_are_played_as_on_the_host() -> Outcome {
    for Scenario { name, script, answers } in SCENARIOS {
        let before = cpu::counters().page_faults;
        let given = Arc::new(SpinLock::new("answers", String::new()));
        let to = given.clone();
        let player = thread::spawn_here("player", None, move || {
            let mut all = String::new();
            vmscript::play(script.as_bytes(), &mut |line| {
                all.push_str(line);
                all.push('\n');
            });
            *to.lock() = core::mem::take(&mut all);
        });
        in_time("the scenario ends", player.needed("a player")?).await?;
        let given = core::mem::take(&mut *given.lock());
        let differs = given.lines().zip(answers.lines()).position(|(given, answer)| given != answer);
        if let Some(at) = differs {
            let (given, answer) = (given.lines().nth(at), answers.lines().nth(at));
            ensure!(given == answer, "{name}: answer {} is {given:?}, on the host {answer:?}", at + 1);
        }
        ensure!(
            given == *answers,
            "{name}: {} answers, not {}",
            given.lines().count(),
            answers.lines().count()
        );
        ensure!(cpu::counters().page_faults > before, "{name}: no fault was raised");
    }
    Ok(())
}
