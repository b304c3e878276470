//! One place of the screen: a character and its colours, in 32 bits.

/// One of the sixteen colours of a terminal: 0 to 7 as ECMA-48 numbers them, 8 to 15 the bright ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(u8);

impl Colour {
    /// Black, the background where nothing else is said.
    pub const BLACK: Self = Self(0);
    /// Light grey, the foreground where nothing else is said.
    pub const GREY: Self = Self(7);

    /// The colour of this number; what is above 15 wraps around.
    pub const fn new(number: u8) -> Self {
        Self(number % 16)
    }

    /// Its bright sister, or itself where it is one.
    pub(super) const fn bright(self) -> Self {
        Self(self.0 | 8)
    }

    /// Red, green and blue.
    pub const fn rgb(self) -> [u8; 3] {
        const PALETTE: [[u8; 3]; 16] = [
            [0, 0, 0],
            [205, 49, 49],
            [13, 188, 121],
            [229, 192, 16],
            [58, 120, 220],
            [188, 63, 188],
            [17, 168, 205],
            [204, 204, 204],
            [102, 102, 102],
            [241, 76, 76],
            [35, 209, 139],
            [245, 245, 67],
            [94, 156, 245],
            [214, 112, 214],
            [41, 184, 219],
            [255, 255, 255],
        ];
        PALETTE[self.0 as usize]
    }
}

/// A character with its colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(u32);

const CHARACTER_BITS: u32 = 21;
const COLOUR_BITS: u32 = 4;

impl Cell {
    /// Nothing, on black.
    pub const BLANK: Self = Self::new(' ', Colour::GREY, Colour::BLACK);

    /// A character in these colours.
    pub const fn new(character: char, foreground: Colour, background: Colour) -> Self {
        let colours = (foreground.0 as u32) | (background.0 as u32) << COLOUR_BITS;
        Self(character as u32 | colours << CHARACTER_BITS)
    }

    /// Its character.
    pub fn character(self) -> char {
        char::from_u32(self.0 & ((1 << CHARACTER_BITS) - 1)).unwrap_or(' ')
    }

    /// The colour of the character.
    pub fn foreground(self) -> Colour {
        Colour::new((self.0 >> CHARACTER_BITS) as u8 & 15)
    }

    /// The colour of what is around it.
    pub fn background(self) -> Colour {
        Colour::new((self.0 >> (CHARACTER_BITS + COLOUR_BITS)) as u8 & 15)
    }

    /// The same with its colours exchanged: the place of the cursor.
    #[must_use]
    pub(super) fn inverse(self) -> Self {
        Self::new(self.character(), self.background(), self.foreground())
    }
}
