//! The machine's virtio disks: what the user asked for, checked before QEMU sees it.
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::image;
use crate::workspace::{Program, Workspace};

/// More rules than this make each request slow, as QEMU looks at them one by one.
pub const MAX_FAILING_SECTORS: u64 = 1024;

/// A disk as the user names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file with the disk's bytes.
    pub path: PathBuf,
    /// The machine may not write.
    pub read_only: bool,
    /// At most so many requests a second.
    pub iops: Option<u32>,
    /// Reads that touch one of these sectors (512 bytes each) fail.
    pub failing: Vec<Range<u64>>,
    /// The first read that touches one of these sectors fails. For tests.
    pub failing_once: Vec<Range<u64>>,
    /// Writes that touch one of these sectors fail. For tests.
    pub failing_writes: Vec<Range<u64>>,
    /// The first write that touches one of these sectors fails. For tests.
    pub failing_writes_once: Vec<Range<u64>>,
    /// So flushes fail. For tests.
    pub failing_flushes: Option<Failing>,
    /// Each write and flush is noted in this file, in their order. For tests.
    pub log: Option<PathBuf>,
}

/// Which of several requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// The first.
    Once,
    /// All.
    Always,
}

impl DiskSpec {
    /// Whether any request is to fail.
    pub(crate) fn fails(&self) -> bool {
        self.failing_flushes.is_some()
            || ![&self.failing, &self.failing_once, &self.failing_writes, &self.failing_writes_once]
                .iter()
                .all(|sectors| sectors.is_empty())
    }
}

impl DiskSpec {
    /// A disk that the machine may only read.
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read_only: true, ..Self::default() }
    }
}

/// A disk that exists and can be given to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The name that the kernel gives it.
    pub name: String,
    /// The exact length of the file; the device itself ends at the next full sector.
    pub bytes: u64,
    /// What the user asked for.
    pub spec: DiskSpec,
}

impl Disk {
    /// Looks at the file of `spec`.
    ///
    /// # Errors
    /// When it is no regular file, empty, or may not be opened as asked.
    pub fn check(name: impl Into<String>, spec: DiskSpec) -> Result<Self> {
        let path = spec.path.display();
        let about = match fs::metadata(&spec.path) {
            Ok(about) => about,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => bail!("there is no disk file {path}"),
            Err(why) => bail!("cannot look at the disk file {path}: {why}"),
        };
        if about.is_dir() {
            bail!("{path} is a folder; a disk must be a regular file");
        }
        if !about.is_file() {
            bail!("{path} is not a regular file; a disk must be one");
        }
        if about.len() == 0 {
            bail!("the disk file {path} is empty; a disk needs at least one byte");
        }
        let sectors = about.len().div_ceil(512);
        if spec.failing.iter().any(|range| range.end > sectors) {
            bail!("--disk-fail: {path} has sectors 0 to {} only", sectors - 1);
        }
        if let Err(why) = File::options().read(true).write(!spec.read_only).open(&spec.path) {
            let hint = if spec.read_only { "" } else { " (--disk-ro opens it for reading only)" };
            bail!("cannot open the disk file {path}: {why}{hint}");
        }
        Ok(Self { name: name.into(), bytes: about.len(), spec })
    }

    /// Can a debugger take its contents back to an earlier moment?
    ///
    /// # Errors
    /// When QEMU would end by a signal at that: where it loads a snapshot of a disk that can be written, it closes each layer
    /// and opens it again, and the one that makes sectors fail cannot be opened so.
    pub(crate) fn check_reversible(&self) -> Result<()> {
        if !self.spec.read_only && self.spec.fails() {
            bail!(
                "--gdb cannot go backwards over {}, which is written and has sectors that fail: record the run with --disk-ro",
                self.spec.path.display()
            );
        }
        Ok(())
    }
}

/// Checks the disks that the user named, in the order of their names `disk0`, `disk1`, ...
///
/// # Errors
/// As [`Disk::check`], and when a file that may be written is named twice.
pub fn check_all(specs: &[DiskSpec]) -> Result<Vec<Disk>> {
    let mut disks: Vec<Disk> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let disk = Disk::check(format!("disk{index}"), spec.clone())?;
        let place = fs::canonicalize(&spec.path).ok();
        let twin = disks.iter().find(|other| fs::canonicalize(&other.spec.path).ok() == place);
        if twin.is_some_and(|twin| !twin.spec.read_only || !spec.read_only) {
            bail!(
                "the disk file {} is named twice and may be written (--disk-ro for both would do)",
                spec.path.display()
            );
        }
        disks.push(disk);
    }
    Ok(disks)
}

/// The disk `swap`: this file, which is none of the other disks. If it is not there it is made, with 1 GiB of zeros that take
/// no place before they are written.
///
/// # Errors
/// As [`Disk::check`], and when the file cannot be made.
pub fn swap_disk(path: &Path, others: &[Disk]) -> Result<Disk> {
    const BYTES: u64 = 1 << 30;
    if !path.exists() {
        let made = File::create_new(path).and_then(|file| file.set_len(BYTES));
        made.with_context(|| format!("cannot make the file for swap {}", path.display()))?;
    }
    let swap = Disk::check("swap", DiskSpec { path: path.into(), ..DiskSpec::default() })?;
    let place = fs::canonicalize(path).ok();
    if others.iter().any(|other| fs::canonicalize(&other.spec.path).ok() == place) {
        bail!("the file for swap {} is another disk, too", path.display());
    }
    Ok(swap)
}

/// The disk of a run that names none: 16 MiB of bytes that look random and are the same everywhere.
///
/// # Errors
/// When the file cannot be made.
pub fn demo_disk(workspace: &Workspace) -> Result<Disk> {
    const BYTES: u64 = 16 << 20;
    let path = workspace.target_folder("disks")?.join("demo-16m.img");
    if fs::metadata(&path).map_or(0, |about| about.len()) != BYTES {
        write_whole(&path, |file| {
            let mut state = 0x0fau64;
            for _ in 0..BYTES / 8 {
                // A linear congruential generator, its upper half folded in: no library may change the bytes.
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                file.write_all(&(state ^ (state >> 33)).to_le_bytes())?;
            }
            Ok(())
        })?;
    }
    Disk::check("disk0", DiskSpec::read_only(path))
}

/// The disk `programs`: a tar file with the user programs, stripped. None when there are none.
///
/// # Errors
/// When a program cannot be read or the file cannot be written.
pub fn programs_disk(workspace: &Workspace, programs: &[Program]) -> Result<Option<Disk>> {
    if programs.is_empty() {
        return Ok(None);
    }
    // Cargo names them in the order in which they were ready; the disk must be the same from the same programs.
    let mut programs = programs.to_vec();
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    let path = workspace.target_folder("disks")?.join("programs.tar");
    let stamp_file = path.with_extension("stamp");
    let stamps = programs.iter().map(|program| image::stamp_of(&program.elf)).collect::<Result<Vec<_>>>()?;
    let stamp = stamps.join("\n");
    let fresh = path.is_file() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp);
    if !fresh {
        let folder = tempfile::tempdir().context("cannot make a folder for stripped programs")?;
        let strip = |program: &Program| {
            let elf = folder.path().join(&program.name);
            image::strip(workspace.toolchain(), &program.elf, &elf)?;
            Ok(Program { name: program.name.clone(), elf })
        };
        let stripped = programs.iter().map(strip).collect::<Result<Vec<_>>>()?;
        write_whole(&path, |file| pack_programs(&stripped, file))?;
        fs::write(&stamp_file, stamp)?;
    }
    Ok(Some(Disk::check("programs", DiskSpec::read_only(path))?))
}

fn pack_programs(programs: &[Program], file: &mut BufWriter<File>) -> Result<()> {
    let mut tar = tar::Builder::new(file);
    for program in programs {
        let bytes =
            fs::read(&program.elf).with_context(|| format!("cannot read {}", program.elf.display()))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, &program.name, bytes.as_slice())?;
    }
    tar.finish()?;
    Ok(())
}

/// Writes a file that appears whole or not at all, whoever else writes it at the same time.
fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    let failure = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(&new).with_context(failure)?);
    write(&mut file).and_then(|()| Ok(file.flush()?)).with_context(failure)?;
    fs::rename(&new, path).with_context(failure)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn refusal(path: &Path) -> String {
        Disk::check("disk0", DiskSpec::read_only(path)).unwrap_err().to_string()
    }

    #[test]
    fn a_disk_has_the_length_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        for bytes in [1, 511, 512, 4097] {
            fs::write(&path, vec![0; bytes]).unwrap();
            assert_eq!(Disk::check("disk0", DiskSpec::read_only(&path)).unwrap().bytes, bytes as u64);
        }
    }

    #[test]
    fn what_is_no_disk_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        assert!(refusal(&folder.path().join("none")).contains("there is no disk file"));
        assert!(refusal(folder.path()).contains("is a folder"));
        assert!(refusal(Path::new("/dev/null")).contains("is not a regular file"));
        let empty = folder.path().join("empty");
        fs::write(&empty, "").unwrap();
        assert!(refusal(&empty).contains("is empty"));
        let beyond = empty.join("below-a-file");
        assert!(refusal(&beyond).contains("cannot look at the disk file"));
    }

    #[test]
    fn a_sector_can_fail_only_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, vec![0; 1025]).unwrap();
        let check =
            |failing| Disk::check("disk0", DiskSpec { failing: vec![failing], ..DiskSpec::read_only(&path) });
        assert!(check(2..3).is_ok());
        assert!(check(2..4).unwrap_err().to_string().contains("sectors 0 to 2"));
    }

    #[test]
    fn a_disk_that_is_written_and_fails_is_not_taken_back() {
        let disk = |read_only, fails: bool| {
            let failing = fails.then_some(1..2).into_iter().collect();
            let spec = DiskSpec { read_only, failing, ..DiskSpec::read_only("/a") };
            Disk { name: "disk0".into(), bytes: 4096, spec }
        };
        for reversible in [disk(true, true), disk(false, false), disk(true, false)] {
            reversible.check_reversible().unwrap();
        }
        let why = disk(false, true).check_reversible().unwrap_err().to_string();
        assert!(why.contains("/a") && why.contains("--disk-ro"), "{why}");
    }

    #[test]
    fn a_file_is_two_disks_only_if_nobody_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, "x").unwrap();
        let writable = DiskSpec { path: path.clone(), ..DiskSpec::default() };
        let readable = DiskSpec::read_only(&path);
        assert!(
            check_all(&[writable.clone(), readable.clone()]).unwrap_err().to_string().contains("named twice")
        );
        assert!(check_all(&[readable.clone(), writable.clone()]).is_err());
        let disks = check_all(&[readable.clone(), readable]).unwrap();
        assert_eq!(disks.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["disk0", "disk1"]);
        fs::write(folder.path().join("other"), "y").unwrap();
        assert!(
            check_all(&[writable, DiskSpec { path: folder.path().join("other"), ..DiskSpec::default() }])
                .is_ok()
        );
    }

    #[test]
    fn a_file_for_swap_is_made_if_it_is_not_there_and_is_no_other_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swap");
        let swap = swap_disk(&path, &[]).unwrap();
        assert_eq!((swap.name.as_str(), swap.bytes), ("swap", 1 << 30));
        fs::write(&path, "used").unwrap();
        let used = swap_disk(&path, &[]).unwrap();
        assert_eq!((used.bytes, fs::read(&path).unwrap()), (4, b"used".to_vec()));
        assert!(swap_disk(&path, &[used]).unwrap_err().to_string().contains("is another disk, too"));
        assert!(swap_disk(folder.path(), &[]).is_err());
    }

    #[test]
    fn programs_are_packed_under_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let elf = folder.path().join("file-of-another-name");
        fs::write(&elf, "\x7fELF program").unwrap();
        let program = Program { name: "hello".into(), elf };
        let path = folder.path().join("programs.tar");
        write_whole(&path, |file| pack_programs(&[program], file)).unwrap();
        let mut tar = tar::Archive::new(File::open(&path).unwrap());
        let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("hello"));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\x7fELF program");
    }
}
