//! Power cuts: whatever a flush has acknowledged is on the disk.
use std::fs;

use anyhow::{Context, Result, ensure};
use faultline_tests::power::{Entry, Log};
use faultline_tests::{Case, Kernel, Session, Setup, TestDisk};

use crate::kernels::passed;

const PAGE: usize = 4096;
/// As in the kernel.
const PAGES: usize = 48;
const GENERATIONS: u64 = 120;
/// How often the power is cut.
const CUTS: usize = 400;

/// The tests of power cuts.
pub(crate) fn cases() -> Vec<Case> {
    let disk = || TestDisk::zeros(((PAGES + 1) * PAGE) as u64).logged();
    let setup = move || Setup { disks: vec![disk()], ..Setup::default() };
    let case = |name| Case::new(name, Kernel::Test("guest-tests")).on(setup);
    vec![
        case("flushed_pages_survive_power_cuts").driven(cuts),
        case("flushes_left_out_are_found_by_power_cuts").driven(finds_that_they_are_left_out),
        case("flushes_before_the_last_store_are_found_by_power_cuts").driven(finds_that_they_are_early),
    ]
}

/// What the disk was told while the test ran, which has passed.
fn log_of(session: Session) -> Result<Log> {
    let folder = session.folder().to_owned();
    let log = fs::File::open(folder.join("disk0.log"))?;
    passed(session)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &log, &mut bytes)?;
    Log::parse(&bytes)
}

fn flushes(log: &Log) -> u64 {
    log.entries.iter().filter(|entry| **entry == Entry::Flush).count() as u64
}

fn cuts(session: Session) -> Result<()> {
    let log = log_of(session)?;
    let flushes = flushes(&log);
    ensure!(flushes >= GENERATIONS, "{flushes} flushes were noted for {GENERATIONS} generations");
    ensure!(log.entries.len() >= CUTS / 2, "only {} entries were noted", log.entries.len());
    let acknowledged = check(&log)?;
    ensure!(acknowledged >= GENERATIONS - 1, "generation {acknowledged} was acknowledged last");
    Ok(())
}

/// The kernel has said of each generation that it was flushed, and has left the command out: then pages are missing.
fn finds_that_they_are_left_out(session: Session) -> Result<()> {
    let log = log_of(session)?;
    let flushes = flushes(&log);
    ensure!(flushes <= 2, "{flushes} flushes were noted, and all but the last were to be left out");
    finds_missing_pages(&log)
}

/// The kernel has given each command before the last stores that it was to cover: then pages are missing as well.
fn finds_that_they_are_early(session: Session) -> Result<()> {
    let log = log_of(session)?;
    let flushes = flushes(&log);
    ensure!(flushes >= GENERATIONS, "{flushes} flushes were noted for {GENERATIONS} generations");
    finds_missing_pages(&log)
}

fn finds_missing_pages(log: &Log) -> Result<()> {
    let last = log.highest(log.entries.len(), 0..PAGE as u64);
    ensure!(last >= GENERATIONS - 1, "generation {last} was acknowledged last");
    let lost = check(log).err().context("a kernel whose flushes cover nothing would pass")?;
    ensure!(
        lost.to_string().contains("was acknowledged"),
        "pages are missing, but what was found is: {lost}"
    );
    Ok(())
}

/// Cuts the power at many points, and looks that everything is there that was acknowledged. Returns the last generation
/// that was.
fn check(log: &Log) -> Result<u64> {
    let (mut random, mut last) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    for number in 0..CUTS {
        let cut = log.entries.len() * (number + 1) / CUTS;
        let acknowledged = log.highest(cut, 0..PAGE as u64);
        last = acknowledged;
        let image = log.cut(cut, vec![0; (PAGES + 1) * PAGE], || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random >> 32 & 1 == 0
        });
        for page in 1..=PAGES {
            let least = acknowledged - acknowledged % (page as u64 % 7 + 1);
            let words = image[page * PAGE..][..PAGE].chunks_exact(8);
            let oldest = words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).min();
            let oldest = oldest.context("a page has words")?;
            ensure!(
                oldest >= least,
                "power is cut at entry {cut}: page {page} has generation {oldest}, but {least} was acknowledged"
            );
        }
    }
    Ok(last)
}
