//! gdb at the machine: where it reaches it, with which symbols, and which commands it has besides its own.
//!
//! QEMU waits before the first instruction. The kernel is not in memory then, so the breakpoint at its entry is one of the
//! processor's: another kind is written into memory, and overwritten when the kernel is loaded.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

use crate::host;
use crate::symbols;
use crate::tell;

/// What is done about a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Debugger {
    /// Start it here; where it is not installed, tell how to start it elsewhere.
    Start,
    /// Tell how to start it: the terminal stays the console's.
    Wait,
}

/// gdb's first commands, for a kernel with these symbols whose machine listens at `socket`. A replay is marked at the
/// kernel's entry, from where it is run again for each step backwards; else that would be from the BIOS's first instruction.
///
/// # Errors
/// When the kernel's file cannot be read, or is no kernel.
pub fn script(elf: &Path, socket: &Path, replays: bool) -> Result<String> {
    let mut file = File::open(elf).with_context(|| format!("cannot open {}", elf.display()))?;
    let place = symbols::place(&mut file).with_context(|| format!("{} is no kernel", elf.display()))?;
    Ok(format!(
        "symbol-file -o {:#x} {}\nsource {}\ntarget remote {}\nthbreak *{:#x}\ncontinue\n{}",
        place.base,
        quoted(elf),
        helpers().display(),
        socket.display(),
        place.entry,
        if replays { "fl-mark\n" } else { "" },
    ))
}

/// The file with the commands that know the kernel's structures.
pub fn helpers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/gdb/faultline.py")
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

/// A gdb that has this terminal.
#[derive(Debug)]
pub struct Gdb {
    is_over: Arc<AtomicBool>,
    waits: JoinHandle<()>,
}

impl Gdb {
    /// Starts gdb with the commands of `script`, or tells how to.
    pub fn start(how: Debugger, script: &Path) -> Option<Self> {
        let line = format!("gdb -q -x {}", script.display());
        let found = host::in_path("gdb");
        let gdb = match (how, &found) {
            (Debugger::Start, Some(gdb)) => Command::new(gdb).arg("-q").arg("-x").arg(script).spawn(),
            (_, found) => {
                if found.is_none() {
                    tell("gdb is not installed (./setup.sh installs it)");
                }
                tell(format_args!("the machine waits for gdb; in another terminal: {line}"));
                return None;
            }
        };
        match gdb {
            Ok(gdb) => Some(Self::watch(gdb)),
            Err(why) => {
                tell(format_args!("gdb does not start ({why}); in another terminal: {line}"));
                None
            }
        }
    }

    fn watch(mut gdb: Child) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let tells = is_over.clone();
        let waits = thread::spawn(move || {
            // However it ended, the terminal is free.
            let _ = gdb.wait();
            tells.store(true, Relaxed);
        });
        Self { is_over, waits }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> Arc<AtomicBool> {
        self.is_over.clone()
    }

    /// Waits until the user has ended it.
    pub fn wait(self) {
        let _ = self.waits.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kind: u16, entry: u64) -> tempfile::NamedTempFile {
        let mut header = [0; 64];
        header[..4].copy_from_slice(b"\x7fELF");
        header[16..18].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&entry.to_le_bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), header).unwrap();
        file
    }

    #[test]
    fn a_kernel_that_can_be_moved_has_its_symbols_where_it_is_loaded() {
        let movable = elf(3, 0x1234);
        let text = script(movable.path(), Path::new("/tmp/s"), false).unwrap();
        assert!(text.starts_with("symbol-file -o 0xffffffff80000000 \"/"), "{text}");
        assert!(text.contains("\nthbreak *0xffffffff80001234\n"), "{text}");
        let fixed = elf(2, 0xffff_ffff_8000_0010);
        let text = script(fixed.path(), Path::new("/tmp/s"), false).unwrap();
        assert!(text.starts_with("symbol-file -o 0x0 "), "{text}");
        assert!(text.contains("\ntarget remote /tmp/s\nthbreak *0xffffffff80000010\n"), "{text}");
    }

    #[test]
    fn a_replay_is_marked_at_the_kernels_entry() {
        let kernel = elf(3, 0x1234);
        let text = |replays| script(kernel.path(), Path::new("/tmp/s"), replays).unwrap();
        assert!(text(true).ends_with("\ncontinue\nfl-mark\n"), "{}", text(true));
        assert!(text(false).ends_with("\ncontinue\n"), "{}", text(false));
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = format!("{:#}", script(file.path(), Path::new("/tmp/s"), false).unwrap_err());
        assert!(why.contains("is no kernel"), "{why}");
    }
}
