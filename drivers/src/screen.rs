//! The text screen: what a terminal shows, and how that becomes pixels.
//!
//! ```text
//! serial port -> Mirror -> Terminal (bytes -> cells, scroll-back) -> changes -> Canvas (cells -> pixels)
//! ```
//!
//! A [`Terminal`] understands the usual control characters and a part of ECMA-48: the cursor's moves, erasing, and
//! colours. It knows which cells its canvas shows, so only those that have become others are painted: scrolling a screen
//! moves an index, and paints the characters that differ. Neither waits, locks, or allocates after it was made; one owner
//! at a time calls them, outside of interrupt handlers.

mod canvas;
mod cell;
mod grid;
mod terminal;
#[cfg(test)]
mod tests;

pub use canvas::{Canvas, Layout};
pub use cell::{Cell, Colour};
pub use terminal::Terminal;
