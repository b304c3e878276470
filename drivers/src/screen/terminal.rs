//! From bytes to cells.

use alloc::string::String;
use core::fmt;

use vte::{Params, Parser, Perform};

use super::{
    cell::{Cell, Colour},
    grid::Grid,
};

/// Columns between two stops of the tabulator.
const TAB: usize = 8;
/// Bytes of an operating-system command that the parser keeps. None is understood.
const OSC_BYTES: usize = 16;

/// What a terminal of some rows and columns shows. See the [module](super).
pub struct Terminal {
    parser: Parser<OSC_BYTES>,
    state: State,
}

/// Everything but the parser, which calls it.
#[derive(Debug)]
struct State {
    grid: Grid,
    row: usize,
    column: usize,
    /// The last column was written: the next character begins a new line.
    wraps: bool,
    hides_cursor: bool,
    style: Style,
}

#[derive(Clone, Copy, Debug)]
struct Style {
    foreground: Colour,
    background: Colour,
    bold: bool,
    inverse: bool,
}

impl Style {
    const PLAIN: Self =
        Self { foreground: Colour::GREY, background: Colour::BLACK, bold: false, inverse: false };

    fn cell(self, character: char) -> Cell {
        let foreground = if self.bold { self.foreground.bright() } else { self.foreground };
        let cell = Cell::new(character, foreground, self.background);
        if self.inverse { cell.inverse() } else { cell }
    }
}

impl Terminal {
    /// A blank screen that keeps `kept` rows that scroll off it; `None` when there is no memory for it, or it has no cell.
    pub fn try_new(columns: usize, rows: usize, kept: usize) -> Option<Self> {
        let grid = Grid::try_new(columns, rows, kept)?;
        let state = State { grid, row: 0, column: 0, wraps: false, hides_cursor: false, style: Style::PLAIN };
        Some(Self { parser: Parser::new_with_size(), state })
    }

    /// Shows what a program has written.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.parser.advance(&mut self.state, bytes);
        self.state.grid.touch();
    }

    /// Moves the view by so many pages, less a line each: upwards if positive, to older lines.
    pub fn look_back(&mut self, pages: isize) {
        let page = self.state.grid.rows().saturating_sub(1).max(1) as isize;
        self.state.grid.look_back(pages.saturating_mul(page));
    }

    /// Moves the view to the end. False if it was there.
    pub fn look_at_end(&mut self) -> bool {
        let was_elsewhere = !self.state.grid.is_at_end();
        self.state.grid.look_back(isize::MIN);
        was_elsewhere
    }

    /// Hands out cells that have become others since they were handed out last, with their row and column: at most
    /// `most`. Returns whether there are more.
    pub fn changes(&mut self, most: usize, paint: impl FnMut(usize, usize, Cell)) -> bool {
        let State { grid, row, column, hides_cursor, .. } = &mut self.state;
        let cursor = (grid.is_at_end() && !*hides_cursor).then_some((*row, *column));
        grid.changes(most, cursor, paint)
    }

    /// The text of a row of the view, without spaces at its end.
    pub fn text(&self, row: usize) -> String {
        let text: String = self.state.grid.view(row).iter().map(|cell| cell.character()).collect();
        text.trim_end().into()
    }
}

impl fmt::Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.feed(text.as_bytes());
        Ok(())
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl State {
    fn erasing(&self) -> Cell {
        Cell::new(' ', Colour::GREY, self.style.background)
    }

    fn line_feed(&mut self) {
        if self.row + 1 < self.grid.rows() {
            self.row += 1;
        } else {
            self.grid.scroll_up(self.erasing());
        }
    }

    fn go(&mut self, row: usize, column: usize) {
        self.row = row.min(self.grid.rows() - 1);
        self.column = column.min(self.grid.columns() - 1);
        self.wraps = false;
    }

    /// Erases a part of the screen around the cursor's place: 0 what follows, 1 what is before, 2 all.
    fn erase(&mut self, what: u16, rows: bool) {
        let (columns, with) = (self.grid.columns(), self.erasing());
        let part = match what {
            0 => self.column..columns,
            1 => 0..self.column + 1,
            2 => 0..columns,
            _ => return,
        };
        self.grid.fill(self.row, part, with);
        if rows {
            let others = match what {
                0 => self.row + 1..self.grid.rows(),
                1 => 0..self.row,
                _ => 0..self.grid.rows(),
            };
            others.for_each(|row| self.grid.fill(row, 0..columns, with));
        }
    }

    fn set_style(&mut self, params: &Params) {
        let mut numbers = params.iter().map(|parts| parts[0]);
        while let Some(number) = numbers.next() {
            let colour = |first: u16| Colour::new((number - first) as u8);
            let style = &mut self.style;
            match number {
                0 => *style = Style::PLAIN,
                1 => style.bold = true,
                7 => style.inverse = true,
                22 => style.bold = false,
                27 => style.inverse = false,
                30..=37 => style.foreground = colour(30),
                39 => style.foreground = Colour::GREY,
                40..=47 => style.background = colour(40),
                49 => style.background = Colour::BLACK,
                90..=97 => style.foreground = colour(90).bright(),
                100..=107 => style.background = colour(100).bright(),
                // One of 256 colours, or red, green and blue: of these, the first sixteen are there.
                38 | 48 => match (numbers.next(), numbers.next()) {
                    (Some(5), Some(index @ 0..16)) if number == 38 => {
                        style.foreground = Colour::new(index as u8);
                    }
                    (Some(5), Some(index @ 0..16)) => style.background = Colour::new(index as u8),
                    (Some(2), Some(_)) => drop((numbers.next(), numbers.next())),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

impl Perform for State {
    fn print(&mut self, character: char) {
        if core::mem::take(&mut self.wraps) {
            self.column = 0;
            self.line_feed();
        }
        let cell = self.style.cell(character);
        let column = self.column;
        self.grid.row_mut(self.row)[column] = cell;
        match column + 1 < self.grid.columns() {
            true => self.column += 1,
            false => self.wraps = true,
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            0x8 => self.go(self.row, self.column.saturating_sub(1)),
            b'\t' => self.go(self.row, (self.column / TAB + 1) * TAB),
            b'\n' => {
                self.wraps = false;
                self.line_feed();
            }
            b'\r' => self.go(self.row, 0),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        let mut numbers = params.iter().map(|parts| parts[0]);
        let (first, second) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let steps = usize::from(first.max(1));
        let (row, column) = (self.row, self.column);
        match (intermediates, action) {
            ([], 'A') => self.go(row.saturating_sub(steps), column),
            ([], 'B') => self.go(row + steps, column),
            ([], 'C') => self.go(row, column + steps),
            ([], 'D') => self.go(row, column.saturating_sub(steps)),
            ([], 'G') => self.go(row, steps - 1),
            ([], 'H' | 'f') => self.go(steps - 1, usize::from(second.max(1)) - 1),
            ([], 'J') => self.erase(first, true),
            ([], 'K') => self.erase(first, false),
            ([], 'm') => self.set_style(params),
            ([b'?'], 'h') if first == 25 => self.hides_cursor = false,
            ([b'?'], 'l') if first == 25 => self.hides_cursor = true,
            _ => {}
        }
    }
}
