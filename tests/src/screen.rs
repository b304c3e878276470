//! Pictures of a machine's screen, and the text that stands on them.
use std::path::Path;

use anyhow::Result;
use faultline::screenshot::Pixels;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// The kernel's font.
const WEIGHT: FontWeight = FontWeight::Regular;
const SIZE: RasterHeight = RasterHeight::Size16;
const WIDTH: usize = get_raster_width(WEIGHT, SIZE);
const HEIGHT: usize = SIZE.val();
/// The mean difference of a pixel's level from the font's with which a character is still recognised.
const TOLERANCE: u32 = 6;

/// A picture, and the same in levels of grey.
#[derive(Debug)]
pub struct Picture {
    width: usize,
    height: usize,
    colours: Vec<[u8; 3]>,
    levels: Vec<u8>,
}

impl Picture {
    /// What characters can be recognised by of these pixels.
    fn new(pixels: &Pixels) -> Self {
        // The brightest colour tells characters from their backgrounds, whatever both are.
        let colours = pixels.bytes.as_chunks::<3>().0.to_vec();
        let levels = colours.iter().map(|pixel| pixel.iter().copied().max().unwrap_or(0)).collect();
        Self { width: pixels.width as usize, height: pixels.height as usize, colours, levels }
    }

    /// Reads a portable pixmap, as QEMU's `screendump` writes it.
    ///
    /// # Errors
    /// When it is none, or not whole.
    pub fn from_ppm(file: &[u8]) -> Result<Self> {
        Pixels::read(file).map(|pixels| Self::new(&pixels))
    }

    /// Reads a PNG file, as the runner's `--screenshot` writes it.
    ///
    /// # Errors
    /// When it is none, or not whole.
    pub fn from_png(file: &Path) -> Result<Self> {
        Pixels::open(file).map(|pixels| Self::new(&pixels))
    }

    /// Characters beside each other.
    pub fn columns(&self) -> usize {
        self.width / WIDTH
    }

    /// The lines of characters, without spaces at their ends. What is no character of the font is a replacement
    /// character.
    pub fn text(&self) -> Vec<String> {
        let font: Vec<(char, Vec<u8>)> =
            (' '..='~').map(|character| (character, levels(character))).collect();
        let line = |row| {
            let line: String = (0..self.columns()).map(|column| self.read(row, column, &font)).collect();
            line.trim_end().to_owned()
        };
        (0..self.height / HEIGHT).map(line).collect()
    }

    /// The background of a place for a character, and what differs from that most, as red, green and blue.
    pub fn colours(&self, row: usize, column: usize) -> ([u8; 3], [u8; 3]) {
        let start = row * HEIGHT * self.width + column * WIDTH;
        let pixels = (0..HEIGHT).flat_map(|line| &self.colours[start + line * self.width..][..WIDTH]);
        // No character reaches the corner.
        let background = self.colours[start];
        let distance = |pixel: &[u8; 3]| -> u32 {
            pixel.iter().zip(background).map(|(a, b)| u32::from(a.abs_diff(b))).sum()
        };
        (background, pixels.copied().max_by_key(distance).unwrap_or(background))
    }

    fn read(&self, row: usize, column: usize, font: &[(char, Vec<u8>)]) -> char {
        let start = row * HEIGHT * self.width + column * WIDTH;
        let cell = (0..HEIGHT).flat_map(|line| &self.levels[start + line * self.width..][..WIDTH]);
        // No character reaches the corner.
        let background = self.levels[start];
        let levels = stretched(cell.map(|level| level.abs_diff(background)).collect());
        let difference =
            |glyph: &[u8]| -> u32 { levels.iter().zip(glyph).map(|(a, b)| u32::from(a.abs_diff(*b))).sum() };
        let best = font.iter().map(|(character, glyph)| (difference(glyph), *character)).min();
        match best {
            Some((difference, character)) if difference <= TOLERANCE * (WIDTH * HEIGHT) as u32 => character,
            _ => char::REPLACEMENT_CHARACTER,
        }
    }
}

/// A character as the font has it.
fn levels(character: char) -> Vec<u8> {
    get_raster(character, WEIGHT, SIZE).map_or_else(Vec::new, |raster| stretched(raster.pixels().to_vec()))
}

/// The same with the largest level as large as can be.
fn stretched(levels: Vec<u8>) -> Vec<u8> {
    let most = u32::from(levels.iter().copied().max().unwrap_or(0)).max(1);
    levels.into_iter().map(|level| (u32::from(level) * 255 / most) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pixmap with these lines, in this colour on that.
    fn painted(lines: &[&str], front: [u8; 3], behind: [u8; 3]) -> Vec<u8> {
        let columns = lines.iter().map(|line| line.len()).max().unwrap();
        let (width, height) = (columns * WIDTH + 3, lines.len() * HEIGHT + 5);
        let mut pixels = vec![behind; width * height];
        for (row, line) in lines.iter().enumerate() {
            for (column, character) in line.chars().enumerate() {
                let raster = get_raster(character, WEIGHT, SIZE).unwrap();
                for (at, level) in raster.pixels().iter().enumerate() {
                    let (x, y) = (column * WIDTH + at % WIDTH, row * HEIGHT + at / WIDTH);
                    let mix = |part: usize| {
                        let (front, behind) = (u32::from(front[part]), u32::from(behind[part]));
                        (front * u32::from(*level) + behind * u32::from(255 - level)) / 255
                    };
                    pixels[y * width + x] = [0, 1, 2].map(|part| mix(part) as u8);
                }
            }
        }
        let mut file = format!("P6\n{width} {height}\n255\n").into_bytes();
        file.extend(pixels.as_flattened());
        file
    }

    #[test]
    fn text_is_read_back_in_any_colours() {
        let all: String = (' '..='~').collect();
        // Not every character has a pixel that is all of its colour.
        let full = |character: char| get_raster(character, WEIGHT, SIZE).unwrap().pixels().contains(&255);
        let full = all.find(full).unwrap();
        for (front, behind) in
            [([204; 3], [0; 3]), ([0; 3], [204; 3]), ([205, 49, 49], [0; 3]), ([255; 3], [58, 120, 220])]
        {
            let picture = Picture::from_ppm(&painted(&["", &all, "  two words "], front, behind)).unwrap();
            assert_eq!(picture.text(), ["", all.trim_end(), "  two words"]);
            assert_eq!(picture.colours(1, full), (behind, front));
            assert_eq!(picture.colours(2, 0), (behind, behind));
        }
    }

    #[test]
    fn what_is_no_character_is_not_taken_for_one() {
        let mut file = painted(&["ab"], [204; 3], [0; 3]);
        let header = file.len() - (2 * WIDTH + 3) * (HEIGHT + 5) * 3;
        // Vertical stripes over the first character.
        for line in 0..HEIGHT {
            for x in (1..WIDTH).step_by(2) {
                file[header + (line * (2 * WIDTH + 3) + x) * 3..][..3].fill(204);
            }
        }
        assert_eq!(Picture::from_ppm(&file).unwrap().text(), ["\u{fffd}b"]);
    }
}
