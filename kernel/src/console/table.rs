//! Tables: columns as wide as what stands in them.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

/// Columns with a head. A column whose head begins with `>` stands right-aligned.
pub(super) struct Table {
    heads: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

/// Spaces between columns.
const GAP: usize = 2;

impl Table {
    pub(super) fn new(heads: &'static [&'static str]) -> Self {
        Self { heads, rows: Vec::new() }
    }

    /// Adds a row; what is missing at its end stays empty.
    pub(super) fn row(&mut self, cells: &[&dyn fmt::Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head = self.heads[column].trim_start_matches('>').chars().count();
        cells.max().unwrap_or(0).max(head)
    }
}

impl Table {
    /// The head and the rows.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let widths: Vec<usize> = (0..self.heads.len()).map(|column| self.width(column)).collect();
        let head: Vec<String> = self.heads.iter().map(|head| head.trim_start_matches('>').into()).collect();
        let head = self.line(&head, &widths);
        core::iter::once(head).chain(self.rows.iter().map(move |row| self.line(row, &widths)))
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, &width), head) in cells.iter().zip(widths).zip(self.heads) {
            if !line.is_empty() {
                line.extend(core::iter::repeat_n(' ', GAP));
            }
            line += &match head.starts_with('>') {
                true => alloc::format!("{cell:>width$}"),
                false => alloc::format!("{cell:<width$}"),
            };
        }
        line.truncate(line.trim_end().len());
        line
    }
}
