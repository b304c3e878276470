//! Disks whose content a test kernel can check.
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use faultline::disk::{Disk, DiskSpec};

/// What is on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Each 8 bytes hold their own offset on the disk (little-endian): every page is different and known.
    Offsets,
    /// Bytes that look random, the same for the same seed.
    Random(u64),
    /// These bytes, and zeros after them.
    Bytes(Vec<u8>),
}

/// A disk for a test: a temporary file.
#[derive(Clone, Debug)]
pub struct TestDisk {
    /// Its length in bytes.
    pub bytes: u64,
    /// What is on it.
    pub content: Content,
    /// How it behaves. Its path and its log are made with the disk.
    pub spec: DiskSpec,
    /// Its writes and flushes are noted beside it: see [`power`](crate::power).
    pub logged: bool,
}

impl TestDisk {
    /// A read-only disk of [`Content::Offsets`].
    pub fn offsets(bytes: u64) -> Self {
        Self { bytes, content: Content::Offsets, spec: DiskSpec::read_only(""), logged: false }
    }

    /// A disk of zeros that may be written.
    pub fn zeros(bytes: u64) -> Self {
        Self { content: Content::Bytes(Vec::new()), ..Self::offsets(bytes) }.writable()
    }

    /// A read-only disk of [`Content::Random`].
    pub fn random(bytes: u64, seed: u64) -> Self {
        Self { content: Content::Random(seed), ..Self::offsets(bytes) }
    }

    /// With at most so many requests a second.
    #[must_use]
    pub fn limited(mut self, iops: u32) -> Self {
        self.spec.iops = Some(iops);
        self
    }

    /// With failing sectors.
    #[must_use]
    pub fn failing(mut self, sectors: Range<u64>) -> Self {
        self.spec.failing.push(sectors);
        self
    }

    /// That behaves in another way.
    #[must_use]
    pub fn but(mut self, change: impl FnOnce(&mut DiskSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// That may be written.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.spec.read_only = false;
        self
    }

    /// Whose writes and flushes are noted.
    #[must_use]
    pub fn logged(mut self) -> Self {
        self.logged = true;
        self
    }

    /// Writes the disk's file and hands it over under the kernel's name for it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn make(&self, folder: &Path, name: &str) -> Result<Disk> {
        let path = folder.join(format!("{name}.img"));
        self.write(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let log = self.logged.then(|| path.with_extension("log"));
        if let Some(log) = &log {
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        }
        let spec = DiskSpec { path, log, ..self.spec.clone() };
        Disk::check(name, spec)
    }

    /// Writes the disk's bytes to a file.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 16, File::create(path)?);
        match &self.content {
            Content::Offsets => self.write_words(&mut file, |offset| offset)?,
            Content::Random(seed) => {
                // xorshift*, whose state is never zero.
                let mut state = seed | 1 << 63;
                self.write_words(&mut file, |_| {
                    state ^= state >> 12;
                    state ^= state << 25;
                    state ^= state >> 27;
                    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
                })?;
            }
            Content::Bytes(bytes) => file.write_all(bytes)?,
        }
        file.into_inner()?.set_len(self.bytes)
    }

    fn write_words(&self, file: &mut impl Write, mut word: impl FnMut(u64) -> u64) -> std::io::Result<()> {
        (0..self.bytes.div_ceil(8)).try_for_each(|index| file.write_all(&word(index * 8).to_le_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &TestDisk) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let made = disk.make(folder.path(), "disk0").unwrap();
        assert_eq!(made.bytes, disk.bytes);
        std::fs::read(made.spec.path).unwrap()
    }

    #[test]
    fn offsets_are_where_they_say() {
        let bytes = content(&TestDisk::offsets(8195));
        assert_eq!(bytes.len(), 8195);
        assert_eq!(bytes[4096..4104], 4096_u64.to_le_bytes());
        assert_eq!(bytes[8192..], [0, 32, 0]);
    }

    #[test]
    fn random_bytes_repeat_with_their_seed() {
        let one = content(&TestDisk::random(4097, 1));
        assert_eq!(one, content(&TestDisk::random(4097, 1)));
        assert_ne!(one, content(&TestDisk::random(4097, 2)));
    }

    #[test]
    fn given_bytes_are_followed_by_zeros() {
        let disk = TestDisk { content: Content::Bytes(vec![7, 8]), ..TestDisk::offsets(4) };
        assert_eq!(content(&disk), [7, 8, 0, 0]);
    }
}
