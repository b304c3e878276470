//! Programs of ring 3, each a run of the console's `run`.
use anyhow::{Result, ensure};
use faultline_tests::{Case, Kernel, Session, Setup};

/// What a series of programs prints and ends with.
struct Expected {
    command: &'static str,
    /// The status of the first that failed, as the console has it.
    status: u8,
    /// In this order.
    texts: &'static [&'static str],
}

/// Everything that has to go well.
const GOOD: Expected = Expected {
    command: "run hello; run faults; run faults; run vectors; run spin-calls; run bad-calls; run hello",
    status: 0,
    texts: &[
        "hello from ring 3",
        "table: 64 pages, 0 words wrong",
        "data: 8 pages, 0 words wrong, 0 stores lost",
        "zeros: 1024 pages, 0 not zero, 0 stores lost",
        "table: 64 pages, 0 words wrong",
        "data: 8 pages, 0 words wrong, 0 stores lost",
        "400 rounds, 0 of them wrong",
        "1000000 calls, 0 of them wrong",
        "bad calls: 0 wrong answers",
        "hello from ring 3",
    ],
};

/// Every bad end, each with its reason, and a good program after all of them.
const BAD: Expected = Expected {
    command: "run exit-7; run wild-read; run wild-write; run wild-exec; run wild-kernel; run divide; \
              run stack-overflow; run nobody; run hello",
    status: 7,
    texts: &[
        "reading 0x12345678\n",
        "nothing is mapped there",
        "the mapping does not allow to write",
        "the mapping does not allow to execute",
        "the address belongs to the kernel",
        "dividing 7 by 0",
        "a division error",
        "going down",
        "stack-overflow: ",
        "error: nobody",
        "hello from ring 3",
    ],
};

/// The tests of programs.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, expected: &'static Expected, judge| {
        let setup = || Setup { programs: true, exec: Some(expected.command.into()), ..Setup::default() };
        Case::new(name, Kernel::Main).on(setup).driven(judge).within(120)
    };
    vec![
        case("programs_run", &GOOD, |session| as_expected(session, &GOOD)),
        case("wild_programs_end_with_the_reason", &BAD, |session| as_expected(session, &BAD)),
    ]
}

fn as_expected(session: Session, expected: &Expected) -> Result<()> {
    let report = session.finish()?;
    report.ended_with(expected.status)?;
    let mut rest = report.exec.as_str();
    for text in expected.texts {
        let place = rest.find(text);
        ensure!(place.is_some(), "`{text}` is not where it should be");
        rest = &rest[place.unwrap_or_default() + text.len()..];
    }
    Ok(())
}
