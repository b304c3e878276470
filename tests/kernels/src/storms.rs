//! Thousands of beginnings and ends.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use kernel::thread::EndReason;

use crate::{
    check::{Outcome, ensure, storm},
    crew::Crew,
    ring3, usage, wild,
};

/// Threads begin and end by the thousand, in every way, and leave nothing behind.
pub(crate) async fn thread_storm() -> Outcome {
    const TOGETHER: usize = 300;
    usage::stays_equal(8 * storm(), |_| async {
        let ran = Arc::new(AtomicUsize::new(0));
        let [mut crew, mut ended] = [(); 2].map(|()| Crew::default());
        for number in 0..TOGETHER {
            let counter = ran.clone();
            crew.add("short", move || {
                let kept = alloc::vec![number; 20];
                counter.fetch_add(kept.len() / 20, Relaxed);
            })?;
            if number % 3 == 0 {
                ended.add("ended", wild::invalid_opcode)?;
            }
            if number % 5 == 0 {
                executor::yield_now().await;
            }
        }
        crew.finish().await?;
        for end in ended.join().await? {
            ensure!(matches!(end, EndReason::Raised(_)), "a thread was {end}");
        }
        let ran = ran.load(Relaxed);
        ensure!(ran == TOGETHER, "{ran} threads of {TOGETHER} ran");
        Ok(())
    })
    .await
}

/// Programs of ring 3 begin, end and are killed by the hundred, and leave neither pages nor page tables.
pub(crate) async fn program_storm() -> Outcome {
    const TOGETHER: usize = 12;
    usage::stays_equal(4 * storm(), |_| async {
        let [mut crew, mut killed] = [(); 2].map(|()| Crew::default());
        for _ in 0..TOGETHER {
            crew.adopt(ring3::storm()?);
            // `jmp $`: it runs for ever.
            killed.adopt(ring3::start([0xeb, 0xfe].into())?);
        }
        crew.finish().await?;
        killed.kill();
        for end in killed.join().await? {
            ensure!(end == EndReason::Killed, "a killed program was {end}");
        }
        Ok(())
    })
    .await
}
