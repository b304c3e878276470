//! The harness of the guest tests: kernels that are tests, booted one machine a test.
//!
//! A [`Case`] is a line of a table: which kernel, which machine, what must come of it. [`Suite`] builds all
//! kernels once, boots at most two machines at a time, and reports in the style of libtest: filter, `--list`,
//! captured console output of a test that fails, and a time limit for each. A kernel that ends without saying
//! how its test went has failed it.
//!
//! `cargo guest-tests [FILTER]` runs these tests only. With `--storm` at its end, or `FAULTLINE_STORM=1` in the
//! environment, the tests that repeat something do so for much longer.
//!
//! `FAULTLINE_TRACE=1` lets every machine record what it does, and its pages be followed on the host ([`replay`]); some
//! tests do so always.
//!
//! What a test kernel does: it reads `test=NAME` and `storm=FACTOR` from its command line, runs the test, sends
//! `test NAME ok` or `test NAME failed: WHY` on the control channel and powers off with status 0.
pub mod case;
pub mod disks;
pub mod power;
pub mod qmp;
pub mod replay;
pub mod screen;
pub mod session;
pub mod suite;

pub use case::{Case, Kernel, Setup, Verdict};
pub use disks::{Content, TestDisk};
pub use qmp::Qmp;
pub use session::{Report, Session};
pub use suite::Suite;
