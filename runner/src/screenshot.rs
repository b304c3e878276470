//! The machine's screen as a PNG file.
//!
//! QEMU writes the screen as a portable pixmap, which every version can; it becomes PNG here. The file appears whole, by
//! renaming, in the place of an older one: a run that fails before leaves that one as it was.
use std::collections::HashMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::qmp::Qmp;

/// A picture that is still to be taken, and the room for it.
#[derive(Debug)]
pub struct Picture {
    path: PathBuf,
    file: NamedTempFile,
}

/// Pixels in rows from the top, three bytes each: red, green, blue.
#[derive(Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `3 * width * height` bytes.
    pub bytes: Vec<u8>,
}

impl Picture {
    /// Makes room for a picture beside `path`.
    ///
    /// # Errors
    /// When `path` cannot become a file.
    pub fn begin(path: &Path) -> Result<Self> {
        if path.is_dir() {
            bail!("{} is a folder: a screenshot is a file", path.display());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file =
            tempfile::Builder::new().prefix(".screenshot-").tempfile_in(folder.unwrap_or(Path::new(".")));
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.into(), file })
    }

    /// Takes it, and puts it into its place. `scratch` is a folder for what QEMU writes.
    ///
    /// # Errors
    /// When QEMU refuses (a machine without a display device has no screen), or the file cannot be written.
    pub(crate) fn take(self, qmp: &mut Qmp, scratch: &Path) -> Result<()> {
        let pixmap = scratch.join("screen.ppm");
        qmp.call("screendump", json!({ "filename": pixmap.to_string_lossy() }))?;
        let pixels = Pixels::read(&fs::read(&pixmap).context("QEMU wrote no picture")?)?;
        self.keep(&pixels).context("cannot write the picture")
    }

    fn keep(mut self, pixels: &Pixels) -> Result<()> {
        pixels.write(&mut self.file)?;
        // A temporary file is for its owner only; this one is no secret.
        self.file.as_file().set_permissions(readable())?;
        self.file.persist(&self.path)?;
        Ok(())
    }
}

fn readable() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o644)
}

impl Pixels {
    /// Reads a portable pixmap as QEMU's `screendump` writes it: `P6`, width, height, 255, and the bytes.
    ///
    /// # Errors
    /// When it is of another kind, or not whole.
    pub fn read(pixmap: &[u8]) -> Result<Self> {
        let mut rest = pixmap;
        let mut word = || {
            let end = rest.iter().position(u8::is_ascii_whitespace)?;
            let word = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            Some(word)
        };
        let header = (word(), word(), word(), word());
        let (Some("P6"), Some(width), Some(height), Some("255")) = header else {
            bail!("QEMU's picture is no pixmap of 8 bits a colour");
        };
        let number = |text: &str| text.parse::<u32>().context("QEMU's picture has no size");
        let (width, height) = (number(width)?, number(height)?);
        let size = u128::from(width) * u128::from(height) * 3;
        if size == 0 || size != rest.len() as u128 {
            bail!("QEMU's picture of {width} by {height} pixels has {} bytes, not {size}", rest.len());
        }
        Ok(Self { width, height, bytes: rest.to_vec() })
    }

    /// Reads a PNG file of the kind that is written here.
    ///
    /// # Errors
    /// When it is of another kind, or cannot be read.
    pub fn open(file: &Path) -> Result<Self> {
        let file = fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info()?;
        let (width, height) = (reader.info().width, reader.info().height);
        if reader.output_color_type() != (png::ColorType::Rgb, png::BitDepth::Eight) {
            bail!("the picture has not three bytes a pixel");
        }
        let mut bytes = vec![0; reader.output_buffer_size().context("the picture is too large")?];
        reader.next_frame(&mut bytes)?;
        Ok(Self { width, height, bytes })
    }

    fn write(&self, out: impl std::io::Write) -> Result<()> {
        let mut out = BufWriter::new(out);
        let mut encoder = png::Encoder::new(&mut out, self.width, self.height);
        encoder.set_depth(png::BitDepth::Eight);
        // Text is the same characters again and again: what is near has nothing to say about them.
        encoder.set_compression(png::Compression::High);
        encoder.set_filter(png::Filter::NoFilter);
        let indexed = self.indexed();
        let bytes = match &indexed {
            Some((palette, places)) => {
                encoder.set_color(png::ColorType::Indexed);
                encoder.set_palette(palette);
                places
            }
            None => {
                encoder.set_color(png::ColorType::Rgb);
                &self.bytes
            }
        };
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        writer.finish()?;
        out.flush()?;
        Ok(())
    }

    /// The colours, and each pixel's place among them; none if they are more than 256. It makes a third of the file.
    fn indexed(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut known, mut palette, mut places) = (HashMap::new(), Vec::new(), Vec::new());
        for colour in self.bytes.chunks_exact(3) {
            let next = u8::try_from(known.len()).ok();
            let place = match known.get(colour) {
                Some(&place) => place,
                None => {
                    known.insert(colour, next?);
                    palette.extend(colour);
                    next?
                }
            };
            places.push(place);
        }
        Some((palette, places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixmap_becomes_the_same_picture_as_png() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.png");
        fs::write(&file, "an older one").unwrap();
        let pixels = Pixels::read(b"P6\n2 1\n255\n\x00\x01\x02\n\r\xff").unwrap();
        Picture::begin(&file).unwrap().keep(&pixels).unwrap();
        let read = Pixels::open(&file).unwrap();
        assert_eq!(read, Pixels { width: 2, height: 1, bytes: vec![0, 1, 2, b'\n', b'\r', 255] });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_picture_of_many_colours_is_kept_as_one_of_few_is() {
        for colours in [1, 2, 256, 257] {
            let bytes: Vec<u8> = (0..300_u16).flat_map(|pixel| (pixel % colours).to_be_bytes()).collect();
            let bytes: Vec<u8> = bytes.chunks_exact(2).flat_map(|two| [two[0], two[1], 7]).collect();
            let pixels = Pixels { width: 20, height: 15, bytes };
            assert_eq!(pixels.indexed().is_some(), colours <= 256);
            let file = NamedTempFile::new().unwrap();
            pixels.write(&file).unwrap();
            assert_eq!(Pixels::open(file.path()).unwrap(), pixels, "{colours} colours");
        }
    }

    #[test]
    fn a_picture_that_is_not_taken_leaves_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.png");
        fs::write(&file, "an older one").unwrap();
        drop(Picture::begin(&file).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"an older one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_whole_pixmap_is_refused() {
        for bad in [
            &b""[..],
            b"P6",
            b"P5\n1 1\n255\n\x00\x00\x00",
            b"P6\n1 1\n65535\n\x00\x00\x00",
            b"P6\n1 1\n255\n\x00\x00",
            b"P6\n1 1\n255\n\x00\x00\x00\x00",
            b"P6\n0 1\n255\n",
            b"P6\n4294967295 4294967295\n255\n\x00",
            b"P6\n-1 1\n255\n\x00",
        ] {
            assert!(Pixels::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_a_file_is_refused_before_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let why = Picture::begin(folder.path()).unwrap_err().to_string();
        assert!(why.contains("is a folder"), "{why}");
        let why = Picture::begin(&folder.path().join("none/a.png")).unwrap_err().to_string();
        assert!(why.contains("cannot write"), "{why}");
    }
}
