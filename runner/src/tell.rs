//! Lines of the runner's own, for people: on standard error, with its name in front.
use std::fmt::Display;
use std::io::{self, Write as _};

/// Prints a line. Where standard error is closed nobody is there to read it, and the run goes on, to its own status.
pub fn tell(line: impl Display) {
    let _nobody_reads = writeln!(io::stderr(), "faultline: {line}");
}
