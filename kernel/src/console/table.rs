//! Tables: columns as wide as what stands in them.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use crate::heap;

/// Columns with a head. A column whose head begins with `>` stands right-aligned.
pub(super) struct Table {
    heads: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// Rows that were left out for want of memory.
    missing: usize,
}

/// Spaces between columns.
const GAP: usize = 2;

impl Table {
    pub(super) fn new(heads: &'static [&'static str]) -> Self {
        Self { heads, rows: Vec::new(), missing: 0 }
    }

    /// Adds a row; what is missing at its end stays empty. Where there is no memory it is only counted.
    pub(super) fn row(&mut self, cells: &[&dyn fmt::Display]) {
        if heap::has_room().is_err() || self.rows.try_reserve(1).is_err() {
            self.missing += 1;
            return;
        }
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let head = self.heads[column].trim_start_matches('>').chars().count();
        cells.max().unwrap_or(0).max(head)
    }
}

impl Table {
    /// The head and the rows, and a word about those that are missing.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let widths: Vec<usize> = (0..self.heads.len()).map(|column| self.width(column)).collect();
        let head: Vec<String> = self.heads.iter().map(|head| head.trim_start_matches('>').into()).collect();
        let head = self.line(&head, &widths);
        let rows = self.rows.iter().map(move |row| self.line(row, &widths));
        let missing = (self.missing > 0)
            .then(|| alloc::format!("... and {} more, for which there is no memory", self.missing));
        core::iter::once(head).chain(rows).chain(missing)
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
