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
    palette: Palette,
}

/// The pixels of two colours by the level of the first: characters beside each other have mostly the same.
#[derive(Debug)]
struct Palette {
    of: Option<([u8; 3], [u8; 3])>,
    pixels: [[u8; MOST_BYTES]; 256],
}

impl Palette {
    /// Paints pixels of `BYTES` bytes: a length that is known makes each of them few stores.
    fn paint<const BYTES: usize>(&self, levels: &[u8], places: &mut [u8]) {
        for (place, &level) in places.as_chunks_mut::<BYTES>().0.iter_mut().zip(levels) {
            place.copy_from_slice(&self.pixels[usize::from(level)][..BYTES]);
        }
    }
}

impl<'a> Canvas<'a> {
    /// Paints on these pixels from now on; `None` where the layout is none, does not fit, or has no room for a character.
    pub fn new(pixels: &'a mut [u8], layout: Layout) -> Option<Self> {
        let Layout { width, height, stride, bytes_per_pixel, colours } = layout;
        let fits = (1..=MOST_BYTES).contains(&bytes_per_pixel)
            && width.checked_mul(bytes_per_pixel)? <= stride
            && height.checked_mul(stride)? <= pixels.len()
            && colours.is_none_or(|shifts| shifts.iter().all(|&shift| shift <= 24));
        let palette = Palette { of: None, pixels: [[0; MOST_BYTES]; 256] };
        let canvas = Self { pixels, layout, palette };
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
        self.mix(cell.foreground().rgb(), cell.background().rgb());
        let Self { pixels, layout, palette } = self;
        let length = layout.bytes_per_pixel;
        for (line, levels) in raster.rows().enumerate() {
            let start = (row * HEIGHT + line) * layout.stride + column * WIDTH * length;
            let places = &mut pixels[start..start + levels.len() * length];
            match length {
                4 => palette.paint::<4>(levels, places),
                3 => palette.paint::<3>(levels, places),
                2 => palette.paint::<2>(levels, places),
                _ => palette.paint::<1>(levels, places),
            }
        }
    }

    /// Makes the palette that of these colours.
    fn mix(&mut self, foreground: [u8; 3], background: [u8; 3]) {
        if self.palette.of == Some((foreground, background)) {
            return;
        }
        for level in 0..=u8::MAX {
            self.palette.pixels[usize::from(level)] = self.pixel(mixed(foreground, background, level));
        }
        self.palette.of = Some((foreground, background));
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
