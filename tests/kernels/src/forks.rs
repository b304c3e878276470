//! Spaces that are forked, and protected, while their threads write.
//!
//! Each thread owns one word of every page, its column, and counts in it, page after page, round after round. So whoever
//! looks at a column that stands still sees the same number from its top to some page, and one less from there on; a
//! write that was lost, came too late or went to another space's page is seen by the thread itself or by the test.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use kernel::{
    memory::{self, memory},
    thread::{self, EndReason},
};
use mm::{
    Access, AddressSpace, Denial, PAGE_SIZE, PageIndex, Placement, Protection, TestPager, VirtAddr, VmObject,
};

use crate::{
    check::{Failure, Needed, Outcome, ensure, storm, while_counting},
    crew::Crew,
    ring3::{self, CODE, DATA, SHARED},
    usage,
};

const PAGE: u64 = PAGE_SIZE as u64;
const RW: Protection = Protection::READ_WRITE.for_user();
/// Threads of the space that is forked; a column more is for its forks.
const WRITERS: usize = 3;
const COLUMNS: usize = WRITERS + 1;
/// A space whose threads count, and the page that it shares with its forks. Words of that: end, rounds of all threads,
/// bytes from the top of a column to its end.
struct Scene {
    space: Arc<AddressSpace>,
    shared: Arc<VmObject>,
    pages: u64,
}

/// What the columns hold, by page.
type Columns = Vec<[u64; COLUMNS]>;

impl Scene {
    /// The first half of the pages are zeros, the others those of a file.
    async fn new(pages: u64) -> Result<Self, Failure> {
        let space = memory::new_user_space().needed("a space")?;
        let at = |address| Placement::Fixed(VirtAddr::truncated(address));
        ring3::map_code(&space, ring3::counter())?;
        let zeros = pages.div_ceil(2);
        space.map_anonymous(zeros, RW, at(DATA)).needed("anonymous memory")?;
        if pages > zeros {
            let file = TestPager::new(memory(), Box::new(|_, page| page.fill(0)));
            let file = VmObject::new(memory(), file, pages - zeros);
            let after = at(DATA + zeros * PAGE);
            space.map_private(&file, PageIndex::new(0), pages - zeros, RW, after).needed("a private file")?;
        }
        let shared = VmObject::zero(memory(), 1);
        space.map(&shared, PageIndex::new(0), 1, RW, at(SHARED)).needed("a shared page")?;
        let scene = Self { space, shared, pages };
        scene.set(2, pages * PAGE).await?;
        Ok(scene)
    }

    async fn set(&self, word: u64, value: u64) -> Outcome {
        self.shared.write(word * 8, &value.to_le_bytes()).await.needed("the shared page")
    }

    /// Rounds of all threads so far.
    async fn rounds(&self) -> Result<u64, Failure> {
        let mut word = [0; 8];
        self.shared.read(8, &mut word).await.needed("the shared page")?;
        Ok(u64::from_le_bytes(word))
    }

    /// Waits until the threads have gone on.
    async fn more_rounds(&self) -> Outcome {
        let before = self.rounds().await?;
        let going_on = async {
            while self.rounds().await? < before + WRITERS as u64 {
                executor::yield_now().await;
            }
            Ok(())
        };
        while_counting("the threads go on", going_on, || 0).await?
    }

    /// What the columns of a space hold, which must be what a thread that stood still there has left.
    async fn columns(&self, space: &AddressSpace) -> Result<Columns, Failure> {
        let mut columns = Columns::new();
        for page in 0..self.pages {
            let mut bytes = [0; COLUMNS * 8];
            space.copy_in(DATA + page * PAGE, &mut bytes).await.needed("a page of the data")?;
            columns.push(core::array::from_fn(|column| {
                u64::from_le_bytes(*bytes[column * 8..].first_chunk().expect("8 bytes"))
            }));
        }
        Ok(columns)
    }
}

/// Starts a thread that counts in a column.
fn count(crew: &mut Crew, space: &Arc<AddressSpace>, column: usize) -> Outcome {
    let (code, base) = (VirtAddr::truncated(CODE), DATA + column as u64 * 8);
    crew.adopt(thread::spawn_user("counter", space.clone(), code, base).needed("a thread")?);
    Ok(())
}

/// Each column is a number down to some page, and one less from there on.
fn in_step(columns: &Columns) -> Outcome {
    for column in 0..COLUMNS {
        let first = columns[0][column];
        let behind = columns.iter().position(|page| page[column] != first).unwrap_or(columns.len());
        let fits = columns[behind..].iter().all(|page| page[column] + 1 == first);
        ensure!(fits, "column {column} is out of step: {columns:?}");
    }
    Ok(())
}

/// A space is forked again and again while its threads write: each fork sees what was written before it and nothing of
/// what was written after, and what threads write in it nobody else sees. Some threads are killed in the middle.
pub(crate) async fn fork_storm() -> Outcome {
    forks(24, 20 * storm()).await
}

/// The same where all threads write to one page.
pub(crate) async fn one_page_fork_storm() -> Outcome {
    forks(1, 30 * storm()).await
}

async fn forks(pages: u64, forks: usize) -> Outcome {
    usage::stays_equal(1, |_| async move {
        let scene = Scene::new(pages).await?;
        let mut crew = Crew::default();
        for column in 0..WRITERS {
            count(&mut crew, &scene.space, column)?;
        }
        let mut children = Vec::new();
        for number in 0..forks {
            scene.more_rounds().await?;
            let child = memory::fork(&scene.space).await.needed("a fork")?;
            let seen = scene.columns(&child).await?;
            in_step(&seen)?;
            scene.more_rounds().await?;
            ensure!(scene.columns(&child).await? == seen, "fork {number} has changed without a write");
            let mut writers = Crew::default();
            for column in [0, WRITERS] {
                count(&mut writers, &child, column)?;
            }
            if number % 2 == 0 {
                let grandchild = memory::fork(&child).await.needed("a fork of a fork")?;
                in_step(&scene.columns(&grandchild).await?)?;
            }
            match number % 3 {
                0 => killed(writers).await?,
                _ => children.push((child, writers)),
            }
            if number % 5 == 4 {
                // Not in the order in which they came.
                let (_, writers) = children.swap_remove(number % children.len());
                killed(writers).await?;
            }
        }
        scene.set(0, 1).await?;
        crew.finish().await?;
        all_even(&scene, &scene.space).await?;
        for (child, writers) in children {
            writers.finish().await?;
            all_even(&scene, &child).await?;
        }
        Ok(())
    })
    .await
}

/// Threads that came to their end have left their columns even.
async fn all_even(scene: &Scene, space: &AddressSpace) -> Outcome {
    let columns = scene.columns(space).await?;
    in_step(&columns)?;
    let (first, last) = (columns.first(), columns.last());
    ensure!(
        first.map(|page| page[0]) == last.map(|page| page[0]),
        "a thread has ended in the middle of a round: {columns:?}"
    );
    Ok(())
}

async fn killed(crew: Crew) -> Outcome {
    crew.kill();
    for end in crew.join().await? {
        ensure!(end == EndReason::Killed, "a thread that was killed was {end}");
    }
    Ok(())
}

/// Pages become read-only while threads write to them: from the moment at which that is done nobody writes, and each
/// thread that tries is told so; then they may write again, and go on where they were.
pub(crate) async fn protect_storm() -> Outcome {
    const PAGES: u64 = 16;
    usage::stays_equal(1, |_| async move {
        let scene = Scene::new(PAGES).await?;
        for number in 0..20 * storm() as u64 {
            let mut crew = Crew::default();
            for column in 0..WRITERS {
                count(&mut crew, &scene.space, column)?;
            }
            scene.more_rounds().await?;
            let (first, pages) = (number % PAGES, 1 + number % 5);
            let end = (first + pages).min(PAGES);
            let range = VirtAddr::truncated(DATA + first * PAGE)..VirtAddr::truncated(DATA + end * PAGE);
            let protect = |protection| scene.space.protect(range.clone(), protection);
            protect(Protection::READ.for_user()).await.needed("a part cannot be protected")?;
            let seen = scene.columns(&scene.space).await?;
            for why in crew.join().await? {
                let denied = matches!(why, EndReason::Denied { why: Denial::Protection(Access::Write), .. });
                ensure!(denied, "a thread that may not write any more was {why}");
            }
            let left = scene.columns(&scene.space).await?;
            let protected = first as usize..end as usize;
            ensure!(
                left[protected.clone()] == seen[protected],
                "round {number}: somebody wrote to what was protected: {seen:?}, then {left:?}"
            );
            in_step(&left)?;
            protect(RW).await.needed("a part cannot be unprotected")?;
        }
        Ok(())
    })
    .await
}
