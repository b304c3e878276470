//! Non-maskable interrupts at any instruction.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use executor::time::Instant;
use kernel::{
    arch::cpu,
    memory::memory,
    thread::{EndReason, call},
    window::Window,
};
use mm::{PAGE_SIZE, PageIndex, Protection, VmObject};

use crate::{
    check::{Needed, Outcome, ensure, storm},
    crew::Crew,
    ring3, wild,
};

/// So many have to hit.
const WANTED: u64 = 300;
/// Pages of each thread.
const PAGES: usize = 16;
const SECONDS: u64 = 40;

static WRONG: AtomicUsize = AtomicUsize::new(0);

/// While the host injects interrupts that cannot be masked, threads fault and call, programs of ring 3 make
/// system calls, tasks sleep: everybody finds everything as it was left.
pub(crate) async fn nmi_storm() -> Outcome {
    let wanted = WANTED * storm() as u64;
    let stop = Arc::new(AtomicBool::new(false));
    let mut crew = Crew::default();
    for _ in 0..4 {
        let object = VmObject::zero(memory(), PAGES as u64);
        let window = Window::map(object.clone(), PAGES * PAGE_SIZE, Protection::READ_WRITE).needed("map")?;
        let stop = stop.clone();
        crew.add("faulting", move || {
            for seed in 1_u64.. {
                if stop.load(Relaxed) {
                    break;
                }
                fault(&window, &object, seed);
            }
        })?;
    }
    let began = Instant::now();
    drivers::power::control("begin");
    let mut programs = 0;
    while cpu::counters().nmis < wanted {
        ensure!(
            began.elapsed().as_secs() < SECONDS * storm() as u64,
            "{} interrupts came",
            cpu::counters().nmis
        );
        let mut running = Crew::default();
        for _ in 0..3 {
            running.adopt(ring3::storm()?);
        }
        for end in running.join().await? {
            ensure!(end == EndReason::Finished(0), "a program was {end}");
            programs += 1;
        }
        executor::time::sleep(core::time::Duration::from_micros(300)).await;
    }
    stop.store(true, Relaxed);
    crew.finish().await?;
    let wrong = WRONG.load(Relaxed);
    ensure!(wrong == 0, "{wrong} words of kernel threads were wrong");
    kernel::println!("{} interrupts, {programs} programs", cpu::counters().nmis);
    Ok(())
}

/// Touches all pages, finds zeros, leaves a value, finds it again after having been away, and drops them.
fn fault(window: &Window, object: &VmObject, seed: u64) {
    let address = |page: usize| window.start().as_u64() + (page * PAGE_SIZE) as u64;
    for page in 0..PAGES {
        let found = wild::read(address(page));
        WRONG.fetch_add(usize::from(found != 0), Relaxed);
        wild::write(address(page), seed ^ page as u64);
    }
    call::yield_now();
    for page in 0..PAGES {
        let found = wild::read(address(page));
        WRONG.fetch_add(usize::from(found != seed ^ page as u64), Relaxed);
    }
    drop(object.release(PageIndex::new(0)..PageIndex::new(PAGES as u64)));
}
