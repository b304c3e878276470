//! A program that wants more than there is.

use alloc::{sync::Arc, vec::Vec};

use kernel::{
    memory::{self, memory},
    thread::{self, EndReason},
};
use mm::{AddressSpace, PAGE_SIZE, PageIndex, Placement, Protection, VirtAddr, VmObject};

use crate::{
    check::{Failure, Needed, Outcome, ensure, eventually},
    crew::Crew,
    ring3::{self, CODE, SHARED},
};

/// Where a program counts: behind what is mapped for all.
const DATA: u64 = 0x4000_0000;
const RW: Protection = Protection::READ_WRITE.for_user();
/// Pages of the program that wants too many: 256 MiB.
const TOO_MANY: u64 = 256 << 8;
/// Its threads.
const HOGS: usize = 3;
/// Programs beside it, and the pages of each: enough for each to be a victim, if there were another.
const INNOCENT: usize = 3;
const FEW: u64 = 300;

/// A space whose threads count in all of its pages, and the page that it shares with the test.
struct Program {
    space: Arc<AddressSpace>,
    shared: Arc<VmObject>,
}

impl Program {
    async fn new(pages: u64) -> Result<Self, Failure> {
        let space = memory::new_user_space().needed("a space")?;
        let at = |address| Placement::Fixed(VirtAddr::truncated(address));
        ring3::map_code(&space, ring3::counter())?;
        space.map_anonymous(pages, RW, at(DATA)).needed("memory")?;
        let shared = VmObject::zero(memory(), 1);
        space.map(&shared, PageIndex::new(0), 1, RW, at(SHARED)).needed("a shared page")?;
        let bytes = pages * PAGE_SIZE as u64;
        shared.write(16, &bytes.to_le_bytes()).await.needed("the shared page")?;
        Ok(Self { space, shared })
    }

    fn start(&self, crew: &mut Crew, column: u64) -> Outcome {
        let code = VirtAddr::truncated(CODE);
        let thread = thread::spawn_user("counter", self.space.clone(), code, DATA + column * 8);
        crew.adopt(thread.needed("a thread")?);
        Ok(())
    }

    async fn rounds(&self) -> Result<u64, Failure> {
        let mut word = [0; 8];
        self.shared.read(8, &mut word).await.needed("the shared page")?;
        Ok(u64::from_le_bytes(word))
    }
}

/// A program writes four times the memory: it ends, all of its threads, and is told why. Programs beside it go on, and
/// have what they wrote; and so may one that comes after it.
pub(crate) async fn a_hog_is_the_one_victim() -> Outcome {
    let free = memory().frames().stats().free;
    let mut innocent = Vec::new();
    let mut others = Crew::default();
    for _ in 0..INNOCENT {
        let program = Program::new(FEW).await?;
        program.start(&mut others, 0)?;
        innocent.push(program);
    }
    for round in 0..2 {
        let hog = Program::new(TOO_MANY).await?;
        let mut hogs = Crew::default();
        for column in 0..HOGS as u64 {
            hog.start(&mut hogs, column)?;
        }
        for end in hogs.join().await? {
            ensure!(end == EndReason::OutOfMemory, "in round {round} a thread of the hog was {end}");
        }
        let mut before = Vec::new();
        for program in &innocent {
            before.push(program.rounds().await?);
        }
        for (program, before) in innocent.iter().zip(before) {
            // They check each word before they count it up.
            while program.rounds().await? < before + 3 {
                executor::yield_now().await;
            }
        }
        // Its threads end before its space is emptied: the first wait sees the end of that poll, the second of what
        // was taken away in it. Then its memory is back although its space is still held.
        memory().settle().await;
        memory().settle().await;
        let kept = hog.space.stats();
        ensure!(kept.mappings == 0 && kept.resident_pages == 0, "the hog keeps {kept:?}");
        let frames = memory().frames();
        eventually("nobody waits for memory", || frames.stats().waiting == 0).await?;
        let gone = (INNOCENT as u64 * FEW) as usize + 1000;
        ensure!(frames.stats().free + gone > free, "{:?} of {free} are free", frames.stats());
    }
    for program in &innocent {
        program.shared.write(0, &1_u64.to_le_bytes()).await.needed("the shared page")?;
    }
    for end in others.join().await? {
        ensure!(end == EndReason::Finished(0), "a program beside the hog was {end}");
    }
    Ok(())
}
