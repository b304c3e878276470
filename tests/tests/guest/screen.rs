//! The kernel's screen: its text is read back from pictures that QEMU takes.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use faultline::Firmware;
use faultline_tests::{Case, Kernel, Qmp, Session, Setup};

/// Longer than a busy host needs for a picture.
const PATIENCE: Duration = Duration::from_secs(30);
const PROMPT: &str = "faultline> ";

/// The screen's tests.
pub(crate) fn cases() -> Vec<Case> {
    let console = || Setup { console: true, ..Setup::default() };
    let uefi = || Setup { console: true, firmware: Firmware::Uefi, cpus: 4, ..Setup::default() };
    let case = |name| Case::new(name, Kernel::Main).on(console);
    vec![
        case("screen_shows_what_the_serial_line_shows").driven(same_as_serial),
        Case::new("screen_shows_what_the_serial_line_shows_by_uefi", Kernel::Main)
            .on(uefi)
            .within(120)
            .driven(same_as_serial),
        Case::new("screen_shows_what_a_command_prints", Kernel::Main).on(waiting).driven(a_command),
        case("screen_shows_older_lines_by_page_up").driven(scrolls_back),
        Case::new("screen_shows_the_colours_of_a_terminal", Kernel::Main)
            .on(|| Setup { console: true, programs: true, ..Setup::default() })
            .driven(colours),
    ]
}

/// The command goes on for longer than pictures take.
fn waiting() -> Setup {
    Setup { exec: Some("help; ticks 600".into()), ..Setup::default() }
}

/// What goes to a file has other line ends.
fn a_command(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    let mut qmp = session.qmp()?;
    let shown = |_: &[String], seen: &[String]| {
        let lines = ["help", "    lists the commands", "    panics, to show the report"];
        lines.iter().all(|line| seen.iter().any(|seen| seen == line))
    };
    sees(&mut session, &mut qmp, "what help prints", shown)
}

/// The lines that a terminal of so many columns shows of a text.
fn lines(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.trim_end().split("\r\n") {
        let characters: Vec<char> = line.chars().collect();
        let parts = characters.chunks(columns).map(|part| part.iter().collect::<String>());
        let before = lines.len();
        lines.extend(parts.map(|part| part.trim_end().to_owned()));
        if lines.len() == before {
            lines.push(String::new());
        }
    }
    lines
}

/// Takes pictures until one's lines, without empty ones at the end, are as they should be. `is_so` gets all lines that
/// were printed, and those that are seen.
fn sees(
    session: &mut Session,
    qmp: &mut Qmp,
    what: &str,
    is_so: impl Fn(&[String], &[String]) -> bool,
) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let picture = session.picture(qmp)?;
        let mut seen = picture.text();
        seen.truncate(seen.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1));
        let printed = lines(&session.console(), picture.columns());
        if is_so(&printed, &seen) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{what}: the screen shows {seen:#?} of {printed:#?}");
    }
}

/// The end of what was printed, as much as there is room for.
fn is_the_end(printed: &[String], seen: &[String]) -> bool {
    seen.len() > 10 && printed.ends_with(seen)
}

fn help(session: &mut Session) -> Result<()> {
    session.send(b"help\r")?;
    session.wait_console("exit", PATIENCE)?;
    session.wait_console(PROMPT, PATIENCE)?;
    Ok(())
}

fn same_as_serial(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.wait_console(PROMPT, PATIENCE)?;
    let mut qmp = session.qmp()?;
    help(&mut session)?;
    sees(&mut session, &mut qmp, "after help", is_the_end)?;
    // More than a screen, and lines that are longer than it is wide.
    for _ in 0..4 {
        help(&mut session)?;
    }
    session.send(format!("{}\r", "long line ".repeat(60)).as_bytes())?;
    session.wait_console(PROMPT, PATIENCE)?;
    sees(&mut session, &mut qmp, "after more", is_the_end)
}

/// What a colour has most of.
fn strong_parts(colour: [u8; 3]) -> String {
    let most = colour.into_iter().max().unwrap_or_default();
    let is_strong = |part: u8| u32::from(part) * 3 > u32::from(most) * 2;
    "rgb".chars().zip(colour).filter(|(_, part)| is_strong(*part)).map(|(name, _)| name).collect()
}

/// The numbers are those of terminals.
fn colours(mut session: Session) -> Result<()> {
    const PARTS: [&str; 8] = ["", "r", "g", "rg", "b", "rb", "gb", "rgb"];
    session.wait_ready()?;
    session.wait_console(PROMPT, PATIENCE)?;
    session.send(b"run colours\r")?;
    session.wait_console("inverse", PATIENCE)?;
    session.wait_console(PROMPT, PATIENCE)?;
    let mut qmp = session.qmp()?;
    let until = Instant::now() + PATIENCE;
    let (picture, text) = loop {
        let picture = session.picture(&mut qmp)?;
        let text = picture.text();
        if text.iter().any(|line| line == "inverse") {
            break (picture, text);
        }
        ensure!(Instant::now() < until, "{text:#?}");
    };
    let row = |line: &str| text.iter().position(|seen| seen == line).with_context(|| format!("{text:#?}"));
    for (number, parts) in PARTS.iter().enumerate().skip(1) {
        let row = row(&format!("colour {number}  colour {}", number + 8))?;
        let (back, normal) = picture.colours(row, 0);
        let (_, bright) = picture.colours(row, "colour 1  ".len());
        ensure!(back == [0; 3], "behind colour {number}: {back:?}");
        ensure!(strong_parts(normal) == *parts, "colour {number} is {normal:?}");
        let most = |colour: [u8; 3]| colour.into_iter().max();
        ensure!(most(bright) > most(normal), "{normal:?} and, brighter, {bright:?}");
    }
    let hidden = text.iter().any(|line| line.starts_with(' ') && line.ends_with("colour 8"));
    ensure!(hidden, "black on black is not seen: {text:#?}");
    let (back, front) = picture.colours(row("inverse")?, 0);
    ensure!(back > [100; 3] && front < back, "inverse: {front:?} on {back:?}");
    Ok(())
}

fn scrolls_back(mut session: Session) -> Result<()> {
    session.wait_ready()?;
    session.wait_console(PROMPT, PATIENCE)?;
    let mut qmp = session.qmp()?;
    for _ in 0..6 {
        help(&mut session)?;
    }
    sees(&mut session, &mut qmp, "after six times help", is_the_end)?;
    let is_older = |printed: &[String], seen: &[String]| {
        !is_the_end(printed, seen) && printed.windows(seen.len()).any(|part| part == seen)
    };
    qmp.press("pgup")?;
    sees(&mut session, &mut qmp, "after page up", is_older)?;
    // What is printed does not move what is looked at.
    help(&mut session)?;
    sees(&mut session, &mut qmp, "after help while older lines are shown", is_older)?;
    qmp.press("pgdn")?;
    qmp.press("pgdn")?;
    sees(&mut session, &mut qmp, "after page down", is_the_end)?;
    qmp.press("pgup")?;
    sees(&mut session, &mut qmp, "after page up again", is_older)?;
    qmp.press("x")?;
    sees(&mut session, &mut qmp, "after another key", is_the_end)
}
