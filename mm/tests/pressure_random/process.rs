//! A program that runs in a space of its own, and knows what it must see.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use executor::{spawn, time};
use mm::{Access, AddressSpace, Denial, FaultOutcome, Placement};

use crate::common::shown::RW;
use crate::common::{PAGE, address, content, page, range};
use crate::steps::Step;
use crate::world::{COUNTS, FILE, OVER, OWN, PROCESSES, SHARED, World, count};

const OWN_AT: u64 = 0x40_0000;
const FILE_AT: u64 = OWN_AT + 0x100 * PAGE;
const SHARED_AT: u64 = OWN_AT + 0x300 * PAGE;
const OVER_AT: u64 = OWN_AT + 0x200 * PAGE;

pub(crate) struct Process {
    pub(crate) world: &'static World,
    pub(crate) number: usize,
    pub(crate) space: Arc<AddressSpace>,
    /// Of its own pages, and then of those over the other file. `None`: nothing is mapped.
    pub(crate) words: Vec<Option<u64>>,
}

impl Process {
    pub(crate) fn first(world: &'static World) -> Self {
        let space = world.machine.user_space();
        let at = |at| Placement::Fixed(address(at));
        space.map_anonymous(OWN, RW, at(OWN_AT)).unwrap();
        space.map(&world.file, page(0), FILE, RW, at(FILE_AT)).unwrap();
        space.map_private(&world.over, page(0), OVER, RW, at(OVER_AT)).unwrap();
        let shared = world.shared.lock().unwrap();
        let shared = shared.as_ref().expect("it goes at the end");
        space.map_shared(shared, page(0), SHARED, RW, at(SHARED_AT)).unwrap();
        let words = (0..OWN).map(|_| Some(0)).chain((0..OVER).map(|page| Some(content(page)))).collect();
        Self::begin(world, 0, space, words)
    }

    pub(crate) fn begin(
        world: &'static World,
        number: usize,
        space: Arc<AddressSpace>,
        words: Vec<Option<u64>>,
    ) -> Self {
        world.taken[number].store(true, Relaxed);
        world.alive.lock().unwrap().push(space.clone());
        Self { world, number, space, words }
    }

    pub(crate) fn is_victim(&self) -> bool {
        self.world.victims.lock().unwrap().iter().any(|victim| Arc::ptr_eq(victim, &self.space))
    }

    /// One access, whose faults are resolved with the heap that there is. What it does takes effect where it succeeds.
    pub(crate) async fn access(
        &self,
        at: u64,
        access: Access,
        try_it: impl Fn() -> bool,
    ) -> Result<(), Denial> {
        loop {
            if try_it() {
                count(&COUNTS.done);
                return Ok(());
            }
            let fault = self.world.machine.fault(at, access);
            match self.world.limited(self.space.resolve(fault)).await {
                FaultOutcome::Resolved => {}
                FaultOutcome::Denied(why) => {
                    match why {
                        Denial::Io { .. } => count(&COUNTS.io),
                        Denial::OutOfMemory => count(&COUNTS.memory),
                        Denial::NoMapping => assert!(self.is_victim(), "nothing was unmapped"),
                        why => panic!("denied: {why}"),
                    }
                    return Err(why);
                }
            }
        }
    }

    pub(crate) async fn read(&self, at: u64, expected: impl Fn() -> u64) -> Result<(), Denial> {
        let (machine, root) = (self.world.machine, self.space.root());
        let try_it = || machine.try_read(root, at).inspect(|&word| assert_eq!(word, expected())).is_some();
        self.access(at, Access::Read, try_it).await
    }

    pub(crate) async fn write(&self, at: u64, word: u64, done: impl Fn()) -> Result<(), Denial> {
        let (machine, root) = (self.world.machine, self.space.root());
        let try_it = || machine.try_write(root, at, word).inspect(|()| done()).is_some();
        self.access(at, Access::Write, try_it).await
    }

    pub(crate) fn at(&self, page: u64) -> u64 {
        if page < OWN { OWN_AT + page * PAGE } else { OVER_AT + (page - OWN) * PAGE }
    }

    /// Of four pages in a row one is this process's.
    fn own_of_four(&self, page: u64) -> u64 {
        page / PROCESSES as u64 * PROCESSES as u64 + self.number as u64
    }

    /// Does one step. False when it was the last.
    pub(crate) async fn step(&mut self, step: Step, rest: &[Step]) -> bool {
        let world = self.world;
        let result = match step {
            Step::Read { page } => match self.words[page as usize] {
                Some(word) => self.read(self.at(page), || word).await,
                None => Ok(()),
            },
            Step::Write { page, word } if self.words[page as usize].is_some() => {
                let result = self.write(self.at(page), word, || {}).await;
                if result.is_ok() {
                    self.words[page as usize] = Some(word);
                }
                result
            }
            Step::ReadShared { page } => {
                self.read(SHARED_AT + page * PAGE, || world.shared_words.lock().unwrap()[page as usize]).await
            }
            Step::WriteShared { page, word } => {
                let page = self.own_of_four(page);
                let done = || world.shared_words.lock().unwrap()[page as usize] = word;
                self.write(SHARED_AT + page * PAGE, word, done).await
            }
            Step::ReadFile { page } => {
                self.read(FILE_AT + page * PAGE, || world.words.lock().unwrap()[page as usize]).await
            }
            Step::WriteFile { page, word } => {
                let page = self.own_of_four(page);
                let done = || world.words.lock().unwrap()[page as usize] = word;
                self.write(FILE_AT + page * PAGE, word, done).await
            }
            Step::Flush => {
                if world.limited(world.file.flush()).await.is_ok() {
                    count(&COUNTS.flushes);
                }
                Ok(())
            }
            Step::Fork => {
                self.fork(rest).await;
                Ok(())
            }
            Step::Unmap { page } => {
                let pages = range(address(self.at(page)), 1);
                if world.limited(self.space.unmap(pages)).await.is_ok() {
                    self.words[page as usize] = None;
                }
                Ok(())
            }
            Step::Sleep { millis } => {
                time::sleep(Duration::from_millis(millis)).await;
                Ok(())
            }
            Step::End => return self.number == 0,
            Step::Write { .. } => Ok(()),
        };
        result != Err(Denial::NoMapping) && !self.is_victim()
    }

    pub(crate) async fn fork(&self, rest: &[Step]) {
        let world = self.world;
        let free = |taken: &AtomicBool| taken.compare_exchange(false, true, Relaxed, Relaxed).is_ok();
        let Some(number) = world.taken.iter().position(free) else { return };
        if let Ok(table) = world.machine.try_empty_table()
            && let Ok(twin) = world.limited(self.space.fork(table)).await
            && !self.is_victim()
        {
            count(&COUNTS.forks);
            let twin = Self::begin(world, number, twin, self.words.clone());
            let handle = spawn(twin.run(rest.to_vec()));
            world.running.lock().unwrap().push(handle);
        } else {
            world.taken[number].store(false, Relaxed);
        }
    }

    /// Does what it has to do, and stays for the end, unless it ends itself or is ended.
    pub(crate) fn run(mut self, steps: Vec<Step>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            for number in 0..steps.len() {
                if !self.step(steps[number].clone(), &steps[number + 1..]).await {
                    return;
                }
                executor::yield_now().await;
            }
            let world = self.world;
            world.done.lock().unwrap().push(self);
        })
    }

    /// With all disks well, it has every word, unless it gave way, or there is no memory and nobody to give way.
    pub(crate) async fn check(&self) {
        let own = (0..).zip(&self.words).filter_map(|(page, word)| Some((self.at(page), (*word)?)));
        let shared = self.world.shared_words.lock().unwrap().clone();
        let shared = (0..).zip(shared).map(|(page, word)| (SHARED_AT + page * PAGE, word));
        for (page, word) in own.chain(shared) {
            let result = self.read(page, || word).await;
            if result.is_err() {
                let memory = self.world.machine.memory;
                let numbers = (memory.frames().stats(), memory.swap_stats());
                // Where nobody has enough to be worth ending, who asks is refused. Up to ten frames somebody always has.
                let low = memory.frames().marks().low;
                let alive = self.world.alive.lock().unwrap();
                let is_spared = alive.iter().all(|space| space.stats().resident_pages < low as u64);
                let is_refused = result == Err(Denial::OutOfMemory) && is_spared && low > 10;
                assert!(self.is_victim() || is_refused, "page {page:#x}: {result:?} with {numbers:?}");
                return;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.world.alive.lock().unwrap().retain(|space| !Arc::ptr_eq(space, &self.space));
        self.world.victims.lock().unwrap().retain(|space| !Arc::ptr_eq(space, &self.space));
        self.world.taken[self.number].store(false, Relaxed);
    }
}
