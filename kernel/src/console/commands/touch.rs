//! `touch`: memory that is there when it is touched, and costs nothing before.

use alloc::{boxed::Box, string::ToString};
use core::time::Duration;

use executor::{sync::oneshot, time::Instant};
use mm::{PAGE_SIZE, Protection, VmObject};

use super::super::{
    Command, CommandError,
    output::say,
    room::{drop_pages, make_room},
    units::{Bytes, Time},
};
use crate::{
    memory,
    thread::{self, EndReason},
    window::Window,
};

const MAX_MIB: u64 = 1 << 20;
/// One page of so many is touched, so the region is that much larger than what it comes to hold.
const STRIDE: usize = 16;
/// What is written: a page's number, scrambled.
const SCRAMBLE: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = size_of::<u64>();
const PAGES_PER_MIB: usize = (1 << 20) / PAGE_SIZE;

pub(super) static TOUCH: Command = Command {
    name: "touch",
    usage: "MIB",
    help: "writes MIB of pages, spread over 16 times as much, and reads them back",
    run: |mut arguments| {
        Box::pin(async move {
            let mib = arguments.needed_number("MIB", 1, MAX_MIB)?;
            arguments.end()?;
            run(mib as usize * PAGES_PER_MIB).await
        })
    },
};

/// What the thread came to.
struct Report {
    wrote: Duration,
    read: Duration,
    wrong: usize,
    /// Faults while it read.
    faults: u32,
}

async fn run(pages: usize) -> Result<u8, CommandError> {
    // One of 32 for page tables, about as much for what is known about the pages.
    make_room(pages + pages / 12).await?;
    let object = VmObject::try_zero(memory::memory(), (pages * STRIDE) as u64)
        .map_err(|why| CommandError::Failed(why.to_string()))?;
    let window = Window::map(object.clone(), pages * STRIDE * PAGE_SIZE, Protection::READ_WRITE)
        .map_err(|why| CommandError::Failed(alloc::format!("the region cannot be mapped: {why}")))?;
    let size = Bytes(window.len() as u64);
    say!("region      {size} at {}, of which nothing is there", window.start());

    let before = used_frames();
    let (sender, receiver) = oneshot::channel();
    let (mut sender, mut window) = (Some(sender), Some(window));
    let mut handle = thread::spawn("touch", move || {
        let Some(bytes) = window.as_mut().map(Window::as_mut_slice) else { return };
        let report = write_and_read(bytes, pages);
        if let (Some(sender), Some(window)) = (sender.take(), window.take()) {
            let _unwanted = sender.send((report, window));
        }
    })
    .map_err(|why| CommandError::Failed(why.to_string()))?;
    let end = (&mut handle).await;
    let (EndReason::Finished(_), Ok((report, window))) = (end, receiver.await) else {
        return Err(CommandError::Failed(alloc::format!("the thread was {end}")));
    };
    let resident = object.stats().resident as usize;
    let used = used_frames().saturating_sub(before);
    let faults = handle.thread().stats().faults - report.faults;
    let each = |time: Duration| Time(time.as_nanos() as u64 / pages as u64);
    say!("written     one page in {STRIDE}: {pages} pages, {faults} faults, {} each", each(report.wrote));
    let cost = Bytes::of_pages(used as u64);
    say!("cost        {used} frames ({cost}): {resident} pages, the rest is page tables and heap");
    let right = pages - report.wrong;
    say!("read back   {right} pages as written, {} faults, {} each", report.faults, each(report.read));
    drop_pages(object).await;
    window.unmap().await;
    memory::memory().settle().await;
    let left = used_frames().saturating_sub(before);
    say!("given back  all but {left} frames of page tables and heap, which the next will use");
    match report.wrong {
        0 => Ok(0),
        wrong => Err(CommandError::Failed(alloc::format!("{wrong} pages hold something else"))),
    }
}

fn used_frames() -> usize {
    let stats = memory::memory().frames().stats();
    stats.total - stats.free
}

/// What the kernel thread does: writes a word to each page that is touched, then reads all of them.
fn write_and_read(bytes: &mut [u8], pages: usize) -> Report {
    let word = |page: usize| (page as u64 + 1).wrapping_mul(SCRAMBLE).to_le_bytes();
    let touched = |page: usize| page * STRIDE * PAGE_SIZE;
    let faults = || thread::current().map_or(0, |thread| thread.stats().faults);
    let began = Instant::now();
    for page in 0..pages {
        bytes[touched(page)..][..WORD].copy_from_slice(&word(page));
    }
    let wrote = began.elapsed();
    let faults_before = faults();
    let began = Instant::now();
    let is_wrong = |page: &usize| {
        // The word that was written, and a zero after it.
        let (written, rest) = bytes[touched(*page)..][..2 * WORD].split_at(WORD);
        written != word(*page) || rest != [0; WORD]
    };
    let wrong = (0..pages).filter(is_wrong).count();
    Report { wrote, read: began.elapsed(), wrong, faults: faults() - faults_before }
}
