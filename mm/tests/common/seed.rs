//! What random programs are drawn by: one number, by which those of a run that failed are played again.

use std::time::{SystemTime, UNIX_EPOCH};

use proptest::test_runner::{Config, RngSeed};

const SEED: &str = "FAULTLINE_SEED";
const CASES: &str = "PROPTEST_CASES";

/// The number that a variable has, if it is set.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// So many programs, or as many as `PROPTEST_CASES` says, by the seed that `FAULTLINE_SEED` says, or another one each
/// time. Of a test that fails, the line that is printed here is shown.
pub fn config(cases: u32) -> Config {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos() as u64;
    let seed = number(SEED).unwrap_or_else(now);
    let cases = number(CASES).map_or(cases, |cases| u32::try_from(cases).expect("a number of programs"));
    println!("the same programs again: {SEED}={seed} {CASES}={cases} cargo test -p mm --test ...");
    Config { failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::with_cases(cases) }
}

/// Whether more programs than usual are asked for.
pub fn is_long() -> bool {
    number(CASES).is_some()
}
