//! Rows of cells: the screen, what has scrolled off it, and what the canvas shows.

use alloc::vec::Vec;
use core::ops::Range;

use super::cell::Cell;

/// The rows of a screen in a ring with those that have scrolled off its top.
#[derive(Debug)]
pub(super) struct Grid {
    columns: usize,
    rows: usize,
    /// The ring: rows one after another.
    cells: Vec<Cell>,
    /// Rows of the ring.
    total: usize,
    /// The row of the ring that is the screen's first.
    top: usize,
    /// How many rows above it hold something.
    history: usize,
    /// How many rows the view stands above the screen.
    back: usize,
    /// What the canvas shows.
    shown: Vec<Cell>,
    /// Cells before this one were compared with what is shown since the last change.
    compared: usize,
}

impl Grid {
    /// A blank screen that keeps `kept` rows more; `None` when there is no memory, or no room for a cell.
    pub(super) fn try_new(columns: usize, rows: usize, kept: usize) -> Option<Self> {
        let blank = |rows: usize| {
            let length = columns.checked_mul(rows)?;
            let mut cells = Vec::new();
            cells.try_reserve_exact(length).ok()?;
            cells.resize(length, Cell::BLANK);
            Some(cells)
        };
        if columns == 0 || rows == 0 {
            return None;
        }
        let total = rows.checked_add(kept)?;
        let (cells, shown) = (blank(total)?, blank(rows)?);
        Some(Self { columns, rows, cells, total, top: 0, history: 0, back: 0, shown, compared: 0 })
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the view is the screen.
    pub(super) fn is_at_end(&self) -> bool {
        self.back == 0
    }

    /// A row of the screen.
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [Cell] {
        self.compared = 0;
        let start = (self.top + row) % self.total * self.columns;
        &mut self.cells[start..start + self.columns]
    }

    /// Fills a part of a row.
    pub(super) fn fill(&mut self, row: usize, columns: Range<usize>, with: Cell) {
        self.row_mut(row)[columns].fill(with);
    }

    /// Moves all rows up by one: the first goes to those that are kept, the last is new. A view of older rows stays on
    /// them as long as they are kept.
    pub(super) fn scroll_up(&mut self, with: Cell) {
        self.top = (self.top + 1) % self.total;
        self.history = (self.history + 1).min(self.total - self.rows);
        if self.back > 0 {
            self.back = (self.back + 1).min(self.history);
        }
        self.fill(self.rows - 1, 0..self.columns, with);
    }

    /// Moves the view by so many rows, upwards if positive, as far as there are rows.
    pub(super) fn look_back(&mut self, rows: isize) {
        self.back = self.back.saturating_add_signed(rows).min(self.history);
        self.compared = 0;
    }

    /// A row of the view.
    pub(super) fn view(&self, row: usize) -> &[Cell] {
        let start = self.view_start(row);
        &self.cells[start..start + self.columns]
    }

    /// Where it begins among the cells.
    fn view_start(&self, row: usize) -> usize {
        (self.top + self.total - self.back + row) % self.total * self.columns
    }

    /// Hands out cells of the view that the canvas shows differently, and counts them as shown: at most `most`. Returns
    /// whether there may be more. `cursor` is shown inverted.
    pub(super) fn changes(
        &mut self,
        most: usize,
        cursor: Option<(usize, usize)>,
        mut paint: impl FnMut(usize, usize, Cell),
    ) -> bool {
        let mut painted = 0;
        while self.compared < self.shown.len() {
            let row = self.compared / self.columns;
            let (begin, from) = (row * self.columns, self.view_start(row));
            let shown = &mut self.shown[begin..begin + self.columns];
            let view = &self.cells[from..from + self.columns];
            let cursor = cursor.and_then(|(at, column)| (at == row).then_some(column));
            // Most rows stay as they are.
            if cursor.is_none() && *shown == *view {
                self.compared = begin + self.columns;
                continue;
            }
            for column in self.compared - begin..self.columns {
                let cell = if cursor == Some(column) { view[column].inverse() } else { view[column] };
                if shown[column] != cell {
                    if painted == most {
                        return true;
                    }
                    painted += 1;
                    shown[column] = cell;
                    paint(row, column, cell);
                }
                self.compared += 1;
            }
        }
        false
    }

    /// Cells have to be compared again.
    pub(super) fn touch(&mut self) {
        self.compared = 0;
    }
}
