//! What tests say, and how they wait.

use alloc::string::String;
use core::{
    fmt,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use executor::time::{self, Instant};

/// Why a test failed, in a sentence on one line.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(why: String) -> Self {
        Self(why)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a test went.
pub(crate) type Outcome = Result<(), Failure>;

/// Ends the test as failed, with the sentence that follows, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)*) => {
        if !$condition {
            return Err($crate::check::Failure::new(alloc::format!($($sentence)*)));
        }
    };
}
pub(crate) use ensure;

/// An error of something that the test needs, as a failure.
pub(crate) trait Needed<T> {
    /// `what` names what is needed.
    fn needed(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Needed<T> for Result<T, E> {
    fn needed(self, what: &str) -> Result<T, Failure> {
        self.map_err(|why| Failure::new(alloc::format!("{what}: {why}")))
    }
}

impl<T> Needed<T> for Option<T> {
    fn needed(self, what: &str) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::new(alloc::format!("there is no {}", what.trim_start_matches("a "))))
    }
}

/// After this time what a test waits for counts as never coming. Also on a host with other work.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `condition` holds; fails with `what` when it does not within reason.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    let began = Instant::now();
    while !condition() {
        ensure!(began.elapsed() < PATIENCE, "waited {} s in vain until {what}", PATIENCE.as_secs());
        time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits for `future`, and fails when it takes longer than is reasonable.
pub(crate) async fn in_time<F: Future>(what: &str, future: F) -> Result<F::Output, Failure> {
    time::timeout(PATIENCE, future)
        .await
        .map_err(|_| Failure::new(alloc::format!("waited {} s in vain until {what}", PATIENCE.as_secs())))
}

/// Waits for `future` for as long as `count` moves: what takes long may do so on a slow host, what stands still
/// fails.
pub(crate) async fn while_counting<F: Future>(
    what: &str,
    future: F,
    count: impl Fn() -> usize,
) -> Result<F::Output, Failure> {
    let mut future = pin!(future);
    loop {
        let before = count();
        match in_time(what, &mut future).await {
            Err(_) if count() != before => {}
            outcome => return outcome,
        }
    }
}

/// What [`ask_host`] has asked for so far.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Asks the host to do something, by a word on the control channel, and waits until it says on the console's
/// line that it has: by the letter `a` the first time, then `b`, and so on.
pub(crate) async fn ask_host(what: &str) -> Outcome {
    let mut console = kernel::serial::CONSOLE
        .reader()
        .ok_or_else(|| Failure::new("somebody else reads the console".into()))?;
    let answer = b'a' + (ASKED.fetch_add(1, Relaxed) % 26) as u8;
    drivers::power::control(what);
    let answered = async { while console.read_byte().await != answer {} };
    in_time(&alloc::format!("the host does as it is told: {what}"), answered).await
}

/// The name of the test that is to run, and how many CPUs the machine must have: `NAME_on_N_cpus`, else one.
pub(crate) fn asked_test() -> (&'static str, &'static str, usize) {
    let whole = kernel::machine::options().value("test").unwrap_or("(none)");
    let split = || {
        let (name, cpus) = whole.strip_suffix("_cpus")?.rsplit_once("_on_")?;
        Some((whole, name, cpus.parse().ok()?))
    };
    split().unwrap_or((whole, whole, 1))
}

/// How many CPUs the machine must have.
pub(crate) fn expected_cpus() -> usize {
    asked_test().2
}

/// How much longer storms are than in an ordinary run.
pub(crate) fn storm() -> usize {
    kernel::machine::options().value("storm").and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
