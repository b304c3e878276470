//! Stacks of kernel threads.

use alloc::sync::Arc;
use core::hint::black_box;

use executor::{WaitReason, sync::Notify};
use kernel::thread::{EndReason, block_on};
use mm::{Denial, PAGE_SIZE};

use crate::{
    check::{Outcome, ensure, storm},
    crew::Crew,
    usage,
};

/// Calls itself until about `bytes` of stack are used, then calls `at_the_bottom`.
#[inline(never)]
pub(crate) fn descend(bytes: usize, at_the_bottom: &dyn Fn()) {
    let room = black_box([0_u8; 1024]);
    match bytes.checked_sub(size_of_val(&room)) {
        Some(rest) => descend(rest, at_the_bottom),
        None => at_the_bottom(),
    }
    // So that the call above is not the last thing to do.
    black_box(&room);
}

/// A stack has the pages that were touched, and gives all of them back.
pub(crate) async fn stacks_grow_as_they_are_touched() -> Outcome {
    const DEEP: usize = 40 << 10;
    usage::stays_equal(3, |round| async move {
        let used = || usage::Usage::now().frames;
        let [go_deep, go_up] = [(); 2].map(|()| Arc::new(Notify::new()));
        let (deep, up) = (go_deep.clone(), go_up.clone());
        let before = used();
        let mut crew = Crew::default();
        crew.add("deep", move || {
            block_on(deep.notified());
            descend(DEEP, &|| block_on(up.notified()));
        })?;
        crew.all_wait_for(WaitReason::Notify).await?;
        let shallow = used() - before;
        // The first rounds make page tables, too.
        let most = if round < usage::WARM_UP { 8 } else { 4 };
        ensure!((1..=most).contains(&shallow), "a thread that has only begun takes {shallow} frames");
        go_deep.notify_one();
        // The thread leaves one wait and comes to the other.
        executor::yield_now().await;
        crate::check::eventually("the thread is deep down", || used() - before >= shallow + 8).await?;
        crew.all_wait_for(WaitReason::Notify).await?;
        let (deep, pages) = (used() - before, DEEP / PAGE_SIZE);
        ensure!((pages..=pages + 5).contains(&deep), "{deep} frames for a stack of {pages} pages");
        go_up.notify_one();
        crew.finish().await
    })
    .await
}

/// A thread that runs over the end of its stack ends, with that as the reason; its neighbours do not notice,
/// and the stack serves the next thread.
pub(crate) async fn stack_overflow_is_a_clean_end() -> Outcome {
    const NEIGHBOURS: usize = 8;
    usage::stays_equal(4 * storm(), |_| async {
        let go_on = Arc::new(Notify::new());
        let [mut above, mut over, mut below] = [(); 3].map(|()| Crew::default());
        let neighbour = |crew: &mut Crew| {
            let go_on = go_on.clone();
            crew.add("neighbour", move || {
                let mine = black_box([0x5a_u8; 2000]);
                block_on(go_on.notified());
                assert!(mine.iter().all(|&byte| byte == 0x5a), "somebody wrote to this stack");
                descend(30 << 10, &|| {});
            })
        };
        for _ in 0..NEIGHBOURS {
            neighbour(&mut above)?;
            over.add("endless", || descend(usize::MAX, &|| {}))?;
            neighbour(&mut below)?;
        }
        for end in over.join().await? {
            ensure!(
                matches!(end, EndReason::Denied { why: Denial::StackOverflow, .. }),
                "a thread without end was {end}"
            );
        }
        above.all_wait_for(WaitReason::Notify).await?;
        below.all_wait_for(WaitReason::Notify).await?;
        go_on.notify_waiters();
        above.finish().await?;
        below.finish().await
    })
    .await
}
