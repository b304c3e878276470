//! Lines of output.

use core::fmt::{self, Write};

use crate::system;

/// The longest line in bytes, its end included; the rest is cut off.
const MAX_LINE: usize = 256;

struct Line {
    bytes: [u8; MAX_LINE],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays free for the line's end.
        let room = &mut self.bytes[self.length..MAX_LINE - 1];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// Writes a line to standard output, as one piece where the kernel takes it as one. What cannot be written
/// is lost.
pub fn line(arguments: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; MAX_LINE], length: 0 };
    // Writing into the buffer cannot fail.
    let _ = line.write_fmt(arguments);
    line.bytes[line.length] = b'\n';
    let mut rest = &line.bytes[..=line.length];
    while !rest.is_empty() {
        match usize::try_from(system::write(system::OUTPUT, rest)) {
            Ok(taken @ 1..) => rest = &rest[taken.min(rest.len())..],
            _ => break,
        }
    }
}
