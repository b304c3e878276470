//! Turns the addresses of a kernel's backtrace into functions, files and lines, while the bytes stream by.
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use addr2line::Loader;
use anyhow::{Context, Result, anyhow, ensure};

/// Where the kernel's first byte is in memory, unless its ELF file names final addresses itself.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Longer lines are no backtrace.
const LONGEST_LINE: usize = 64;

/// The symbols of one kernel, read when the first address is asked for.
pub struct Symbols {
    /// Kept open: a build may put another file in its place meanwhile.
    elf: File,
    loaded: Option<Option<(Loader, u64)>>,
}

impl Symbols {
    /// Opens the unstripped ELF file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(elf: &Path) -> Result<Self> {
        let elf = File::open(elf).with_context(|| format!("cannot open {}", elf.display()))?;
        Ok(Self { elf, loaded: None })
    }

    /// The functions that `address` is in: the innermost first, what it was inlined into after it.
    fn describe(&mut self, address: u64) -> Vec<String> {
        if self.loaded.is_none() {
            self.loaded = Some(load(&mut self.elf).ok());
        }
        let Some(Some((loader, base))) = &self.loaded else { return Vec::new() };
        let Some(probe) = address.checked_sub(*base) else { return Vec::new() };
        // Beyond the code a name would be that of the last function.
        if loader.get_section_range(b".text").is_some_and(|code| !(code.begin..code.end).contains(&probe)) {
            return Vec::new();
        }
        let mut found = Vec::new();
        if let Ok(mut frames) = loader.find_frames(probe) {
            while let Ok(Some(frame)) = frames.next() {
                let raw = frame.function.as_ref().and_then(|name| name.raw_name().ok());
                let mut text = raw.map_or_else(|| "?".to_owned(), |raw| demangled(&raw));
                if let Some(place) = &frame.location
                    && let Some(file) = place.file
                {
                    let _ = write!(text, " ({}:{})", shortened(file), place.line.unwrap_or(0));
                }
                found.push(text);
            }
        }
        if found.is_empty() {
            found.extend(loader.find_symbol(probe).map(demangled));
        }
        found
    }
}

/// Where a kernel is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What is added to the addresses in its file.
    pub(crate) base: u64,
    /// Its first instruction.
    pub(crate) entry: u64,
}

/// Reads from the head of an ELF file where its kernel will be.
///
/// # Errors
/// When it has none.
pub(crate) fn place(elf: &mut File) -> Result<Place> {
    let mut header = [0; 32];
    elf.read_exact(&mut header)?;
    ensure!(header.starts_with(b"\x7fELF"), "it is no ELF file");
    const POSITION_INDEPENDENT: u16 = 3;
    let movable = u16::from_le_bytes([header[16], header[17]]) == POSITION_INDEPENDENT;
    let base = if movable { KERNEL_BASE } else { 0 };
    let entry = u64::from_le_bytes(header[24..].try_into().expect("8 bytes"));
    Ok(Place { base, entry: base.wrapping_add(entry) })
}

fn load(elf: &mut File) -> Result<(Loader, u64)> {
    let base = place(elf)?.base;
    let path = format!("/proc/self/fd/{}", elf.as_raw_fd());
    let loader = Loader::new(path).map_err(|why| anyhow!("{why}"))?;
    Ok((loader, base))
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// Without what is the same for all files of the workspace or a library.
fn shortened(file: &str) -> &str {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::to_str).unwrap_or("");
    if let Some(rest) = file.strip_prefix(workspace) {
        return rest.trim_start_matches('/');
    }
    for above in ["/registry/src/", "/library/"] {
        if let Some((_, rest)) = file.split_once(above) {
            return rest;
        }
    }
    file
}

/// Passes console bytes through at once, and adds to each line of a backtrace what its address means.
pub struct Symboliser {
    symbols: Symbols,
    /// The line so far; none: too long for a backtrace.
    line: Option<Vec<u8>>,
}

impl Symboliser {
    /// For the console of a kernel with these symbols.
    pub fn new(symbols: Symbols) -> Self {
        Self { symbols, line: Some(Vec::new()) }
    }

    /// What to print for these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if matches!(byte, b'\r' | b'\n') {
                let line = self.line.replace(Vec::new()).unwrap_or_default();
                if let Some((number, address)) = backtrace_line(&line) {
                    self.explain(number, address, &mut out);
                }
            } else if let Some(line) = &mut self.line {
                line.push(byte);
                if line.len() > LONGEST_LINE {
                    self.line = None;
                }
            }
            out.push(byte);
        }
        out
    }

    fn explain(&mut self, number: u32, address: u64, out: &mut Vec<u8>) {
        // All but the first are return addresses: the call is in front of them.
        let frames = self.symbols.describe(address - u64::from(number > 0));
        for (index, frame) in frames.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\r\n      inlined into");
            }
            out.push(b' ');
            out.extend_from_slice(frame.as_bytes());
        }
    }
}

/// Reads a line like `  #3 0xffffffff80012345`.
fn backtrace_line(line: &[u8]) -> Option<(u32, u64)> {
    let line = std::str::from_utf8(line).ok()?.trim();
    let (number, address) = line.strip_prefix('#')?.split_once(' ')?;
    let digits = address.trim_start().strip_prefix("0x")?;
    let address = u64::from_str_radix(digits, 16).ok().filter(|address| *address != 0)?;
    Some((number.parse().ok()?, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console of a 'kernel' that is this test program itself.
    fn symboliser() -> Symboliser {
        Symboliser::new(Symbols::open(Path::new("/proc/self/exe")).unwrap())
    }

    /// Where a kernel at its usual place would have the function that is here at `address`.
    fn in_kernel(address: usize) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let program = std::env::current_exe().unwrap();
        let first = maps.lines().find(|line| line.ends_with(program.to_str().unwrap())).unwrap();
        let base = u64::from_str_radix(first.split_once('-').unwrap().0, 16).unwrap();
        KERNEL_BASE + (address as u64 - base)
    }

    #[inline(never)]
    fn a_function_with_a_name() -> u32 {
        std::hint::black_box(7)
    }

    #[test]
    fn lines_of_a_backtrace_are_known_from_others() {
        assert_eq!(backtrace_line(b"  #3 0xffffffff80012345"), Some((3, 0xffff_ffff_8001_2345)));
        assert_eq!(backtrace_line(b"#12  0x10"), Some((12, 0x10)));
        for other in [
            "",
            "#",
            "#3",
            "# 0x10",
            "#x 0x10",
            "#3 12",
            "#3 0xzz",
            "#3 0x10 more",
            "#3 0x0",
            "> #3 0x1",
            "\u{fffd}",
        ] {
            assert_eq!(backtrace_line(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_address_becomes_function_file_and_line() {
        let address = in_kernel(a_function_with_a_name as *const () as usize);
        let text = symboliser().feed(format!("  #0 {address:#018x}\r\n").as_bytes());
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with(&format!("  #0 {address:#018x} ")), "{text}");
        assert!(text.contains("a_function_with_a_name (runner/src/symbols.rs:"), "{text}");
        assert!(text.ends_with("\r\n"), "{text}");
    }

    #[test]
    fn the_call_before_a_return_address_is_meant() {
        let address = in_kernel(a_function_with_a_name as *const () as usize);
        let text =
            String::from_utf8(symboliser().feed(format!("#1 {:#x}\n", address + 1).as_bytes())).unwrap();
        assert!(text.contains("a_function_with_a_name"), "{text}");
    }

    #[test]
    fn bytes_pass_at_once_and_unchanged() {
        let mut symboliser = symboliser();
        for piece in ["fault", "line> ", "#1 ", "0x1", "\n", "\u{1b}[2K\rx", "\n#2 0xffffffffffffffff\n"] {
            assert_eq!(symboliser.feed(piece.as_bytes()), piece.as_bytes());
        }
        let long = vec![b'#'; 1 << 16];
        assert_eq!(symboliser.feed(&long), long);
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let address = in_kernel(a_function_with_a_name as *const () as usize);
        let mut symboliser = symboliser();
        let mut text = Vec::new();
        for byte in format!("junk\n  #0 {address:#x}\n").bytes() {
            text.extend(symboliser.feed(&[byte]));
        }
        assert!(String::from_utf8(text).unwrap().contains("a_function_with_a_name"));
    }
}
