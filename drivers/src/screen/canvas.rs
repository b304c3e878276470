//! From cells to pixels.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::cell::Cell;

const WEIGHT: FontWeight = FontWeight::Regular;
const SIZE: RasterHeight = RasterHeight::Size16;
const WIDTH: usize = get_raster_width(WEIGHT, SIZE);
const HEIGHT: usize = SIZE.val();
/// Stands for a character that the font does not have.
const UNKNOWN: char = '?';
/// A pixel is no longer than that.
const MOST_BYTES: usize = 4;

/// How pixels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Pixels beside each other.
    pub width: usize,
    /// Lines of pixels.
    pub height: usize,
    /// Bytes from one line to the next.
    pub stride: usize,
    /// Bytes of a pixel: 1 to 4.
    pub bytes_per_pixel: usize,
    /// The lowest bits of red, green and blue in a pixel; `None` where it is a level of grey.
    pub colours: Option<[u8; 3]>,
}

/// Pixels, and where they lie.
#[derive(Debug)]
pub struct Canvas<'a> {
    pixels: &'a mut [u8],
    layout: Layout,
}

impl<'a> Canvas<'a> {
    /// Paints on these pixels from now on; `None` where the layout is none, does not fit, or has no room for a character.
    pub fn new(pixels: &'a mut [u8], layout: Layout) -> Option<Self> {
        let Layout { width, height, stride, bytes_per_pixel, colours } = layout;
        let fits = (1..=MOST_BYTES).contains(&bytes_per_pixel)
            && width.checked_mul(bytes_per_pixel)? <= stride
            && height.checked_mul(stride)? <= pixels.len()
            && colours.is_none_or(|shifts| shifts.iter().all(|&shift| shift <= 24));
        let canvas = Self { pixels, layout };
        (fits && canvas.columns() > 0 && canvas.rows() > 0).then_some(canvas)
    }

    /// Characters beside each other.
    pub fn columns(&self) -> usize {
        self.layout.width / WIDTH
    }

    /// Lines of characters.
    pub fn rows(&self) -> usize {
        self.layout.height / HEIGHT
    }

    /// Makes a line of characters black, and what is beside and, for the last one, below it: so blank cells are shown.
    pub fn clear(&mut self, row: usize) {
        let end = if row + 1 == self.rows() { self.layout.height } else { (row + 1) * HEIGHT };
        self.pixels[row * HEIGHT * self.layout.stride..end * self.layout.stride].fill(0);
    }

    /// Paints a cell.
    ///
    /// # Panics
    /// When there is no such row or column.
    pub fn paint(&mut self, row: usize, column: usize, cell: Cell) {
        assert!(row < self.rows() && column < self.columns());
        let raster = get_raster(cell.character(), WEIGHT, SIZE).or_else(|| get_raster(UNKNOWN, WEIGHT, SIZE));
        let Some(raster) = raster else { return };
        let (foreground, background) = (cell.foreground().rgb(), cell.background().rgb());
        let (solid, empty) = (self.pixel(foreground), self.pixel(background));
        let length = self.layout.bytes_per_pixel;
        for (line, levels) in raster.rows().enumerate() {
            let start = (row * HEIGHT + line) * self.layout.stride + column * WIDTH * length;
            for (index, &level) in levels.iter().enumerate() {
                let pixel = match level {
                    0 => empty,
                    u8::MAX => solid,
                    level => self.pixel(mixed(foreground, background, level)),
                };
                let at = start + index * length;
                match length {
                    // A length that is known makes it one store.
                    4 => self.pixels[at..at + 4].copy_from_slice(&pixel),
                    _ => self.pixels[at..at + length].copy_from_slice(&pixel[..length]),
                }
            }
        }
    }

    fn pixel(&self, rgb: [u8; 3]) -> [u8; MOST_BYTES] {
        let word = match self.layout.colours {
            Some(shifts) => {
                rgb.iter().zip(shifts).fold(0, |word, (&part, shift)| word | u32::from(part) << shift)
            }
            // What the eye makes of the three, in 256ths.
            None => {
                let weighted = rgb.iter().zip([77, 150, 29]).map(|(&part, weight)| u32::from(part) * weight);
                weighted.sum::<u32>() / 256
            }
        };
        word.to_le_bytes()
    }
}

/// `level` 255ths of one colour, the rest of the other.
fn mixed(foreground: [u8; 3], background: [u8; 3], level: u8) -> [u8; 3] {
    let level = u32::from(level);
    core::array::from_fn(|part| {
        let (front, behind) = (u32::from(foreground[part]), u32::from(background[part]));
        ((front * level + behind * (255 - level)) / 255) as u8
    })
}
