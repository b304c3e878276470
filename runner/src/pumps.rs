//! The threads that carry what QEMU prints to where it belongs, and tell the machine what happens.
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Result, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use rustix::fs::{FileType, Mode, OFlags};

use crate::control::Control;
use crate::symbols::Symboliser;

/// Something that happened to a machine.
pub(crate) enum Event {
    /// A line of the control channel.
    Control(Control),
    /// The console printed something for the first time.
    Alive,
    /// QEMU has closed its standard output: it is ending.
    Ended,
    /// The machine has been powered off, and stays.
    Stopped,
    /// A line of QEMU's own.
    Message(String),
    /// Nobody can read our output any more.
    Unread(std::io::Error),
    /// The runner got this signal.
    Interrupted(i32),
}

/// Carries the console, its bytes at once, its backtraces explained.
pub(crate) fn console(
    mut stream: impl Read + AsFd + Send + 'static,
    mut symboliser: Symboliser,
    mut sink: Box<dyn Write + Send>,
    events: Sender<Event>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        widen(&stream);
        let (mut bytes, mut first) = ([0; 4096], true);
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            if std::mem::take(&mut first) {
                let _ = events.send(Event::Alive);
            }
            carry(&symboliser.feed(&bytes[..count]), &mut *sink, &events);
        }
        let _ = events.send(Event::Ended);
    })
}

/// Makes the pipe that QEMU writes the output of the one command to.
///
/// It is a pipe because the serial port writes byte by byte, and each byte takes up as much of a socket as a page of
/// text. When there is no room QEMU tries again at some other time, and a machine that is recorded would not be the
/// same again. What is returned: the end to read from, and one to write to, which keeps the other from ending before
/// QEMU has begun.
pub(crate) fn make_pipe(path: &Path) -> Result<(File, File)> {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    // Without a writer an ordinary open would wait for one.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of the system's");
    let reader = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let writer = File::options().write(true).open(path)?;
    rustix::fs::fcntl_setfl(&reader, OFlags::empty())?;
    widen(&reader);
    Ok((reader, writer))
}

/// As much room as the system gives to anybody.
fn widen(pipe: impl AsFd) {
    // Less room is enough nearly always.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, 1 << 20);
}

/// Carries the output of the one command.
pub(crate) fn exec(mut pipe: File, mut sink: Box<dyn Write + Send>, events: Sender<Event>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            carry(&bytes[..count], &mut *sink, &events);
        }
    })
}

/// Keeps reading even if the bytes cannot be written, or QEMU would wait for us.
fn carry(bytes: &[u8], sink: &mut dyn Write, events: &Sender<Event>) {
    if let Err(why) = sink.write_all(bytes).and_then(|()| sink.flush()) {
        let _ = events.send(Event::Unread(why));
    }
}

/// Turns each line of a stream into an event.
pub(crate) fn lines<R: Read>(
    open: impl FnOnce() -> Result<R> + Send + 'static,
    events: Sender<Event>,
    event: impl Fn(String) -> Event + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Ok(stream) = open() else { return };
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = stream.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if events.send(event(text)).is_err() {
                return;
            }
        }
    })
}
