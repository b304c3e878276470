//! The figures of a run, side by side.

use std::fmt;

use crate::workload::TaskMemory;
use crate::{Case, Who, Workload};

/// What was measured of one workload with one executor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figure {
    /// Or bytes, of a task's memory.
    pub(crate) instructions: Option<f64>,
    pub(crate) nanos: Option<f64>,
    pub(crate) allocations: Option<usize>,
}

impl Figure {
    pub(crate) fn of(memory: TaskMemory) -> Self {
        Figure { instructions: Some(memory.bytes as f64), nanos: None, allocations: Some(memory.allocations) }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(instructions) = self.instructions else { return f.pad("") };
        let text = match (self.nanos, self.allocations) {
            (Some(nanos), _) => format!("{instructions:.0} ({nanos:.0})"),
            (None, Some(allocations)) => format!("{instructions:.0} [{allocations}]"),
            (None, None) => format!("{instructions:.0}"),
        };
        f.pad(&text)
    }
}

/// One row a workload, one column an executor.
#[derive(Default)]
pub(crate) struct Table {
    figures: [[Figure; Who::ALL.len()]; Workload::ALL.len()],
}

impl Table {
    pub(crate) fn put(&mut self, case: &Case, figure: Figure) {
        *self.at(case) = figure;
    }

    pub(crate) fn instructions(&mut self, case: &Case, instructions: f64) {
        self.at(case).instructions = Some(instructions);
    }

    fn at(&mut self, case: &Case) -> &mut Figure {
        &mut self.figures[case.workload as usize][case.who as usize]
    }

    /// Rows with something in them.
    fn rows(&self) -> impl Iterator<Item = (Workload, &[Figure; Who::ALL.len()])> {
        let rows = Workload::ALL.into_iter().zip(&self.figures);
        rows.filter(|(_, figures)| figures.iter().any(|figure| figure.instructions.is_some()))
    }

    /// The workloads where ours needs more than it may.
    fn too_much(&self) -> impl Iterator<Item = Workload> {
        let rows = self.rows().filter(|(workload, figures)| {
            let ours = figures[Who::Ours as usize];
            let limit = workload.facts().2 as f64;
            // What is printed as the limit is within it.
            ours.instructions.is_some_and(|ours| ours.round() > limit)
                || ours.allocations.is_some_and(|allocations| allocations > 1)
        });
        rows.map(|(workload, _)| workload)
    }

    pub(crate) fn is_within_limits(&self) -> bool {
        self.too_much().next().is_none()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nInstructions of an operation (nanoseconds); of a task's memory bytes [allocations].\n"
        )?;
        write!(f, "| {:<15} | {:>5} ", "workload", "limit")?;
        for who in Who::ALL {
            write!(f, "| {:>11} ", who.name())?;
        }
        write!(f, "|\n| --- | ---: ")?;
        for _ in Who::ALL {
            write!(f, "| ---: ")?;
        }
        writeln!(f, "|")?;
        for (workload, figures) in self.rows() {
            write!(f, "| {:<15} | {:>5} ", workload.name(), workload.facts().2)?;
            for figure in figures {
                write!(f, "| {figure:>11} ")?;
            }
            writeln!(f, "|")?;
        }
        for workload in self.too_much() {
            let (name, _, limit) = workload.facts();
            let ours = self.figures[workload as usize][Who::Ours as usize];
            writeln!(f, "\n{name}: ours takes {ours}, above its limit of {limit}.")?;
        }
        Ok(())
    }
}
