//! Plays a line, and goes on until nothing more can happen.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use executor::WaitReason;
use executor::lock::SpinLock;
use mm::{AddressSpace, PageIndex};

use crate::answer::Answer;
use crate::begin::Begun;
use crate::book::Owner;
use crate::command::{Command, Direction, Line};
use crate::line::{Wrong, words};
use crate::machine::{Job, Machine, Progress, SPACE};
use crate::world::{Doing, File, MAIN, Running, Space, World};

/// Plays scenarios on a machine, a line at a time.
pub struct Player<M: Machine> {
    pub(crate) machine: M,
    /// From `ram` on.
    pub(crate) world: Option<World<M::Thread>>,
    wrong: bool,
}

impl<M: Machine> Player<M> {
    /// A player at the start of a scenario.
    pub fn new(machine: M) -> Self {
        Self { machine, world: None, wrong: false }
    }

    /// Whether any line so far was wrong.
    pub fn was_wrong(&self) -> bool {
        self.wrong
    }

    /// Plays one line, whatever bytes it has, and tells each line of the answer, without its end. Nothing is told for a
    /// line without words.
    pub fn play(&mut self, line: &[u8], mut tell: impl FnMut(&str)) {
        let answer = match words(line) {
            None => Err(Wrong),
            Some(words) => {
                let words: Vec<_> = words.collect();
                if words.is_empty() {
                    return;
                }
                Line::parse(&words).and_then(|line| self.play_command(&line))
            }
        };
        if let Some(world) = &mut self.world {
            world.retire();
        }
        match answer {
            Ok(lines) => lines.iter().for_each(|line| tell(line)),
            Err(Wrong) => {
                self.wrong = true;
                tell("error syntax");
            }
        }
    }

    fn play_command(&mut self, line: &Line<'_>) -> Result<Vec<String>, Wrong> {
        if let (Command::Ram(frames), None) = (&line.command, line.space) {
            return Ok(one(self.begin_world(*frames)?));
        }
        let world = self.world.as_mut().ok_or(Wrong)?;
        world.reclaimed.clear();
        let space = line.space.map_or(Ok(MAIN), |name| world.space(name))?;
        match line.command {
            Command::Show => {
                world.refresh_book();
                Ok(crate::show::show(world))
            }
            Command::Log(file) => {
                let file = world.file(file)?;
                Ok(one(log(&world.files[file].pager.take_log())))
            }
            Command::Join(id) => {
                if let Some(answer) = world.ended.get(id) {
                    return Ok(one(answer));
                }
                let at = world.thread(id)?;
                Ok(one(self.parked(at)))
            }
            Command::Kill(id) => {
                if world.ended.remove(id).is_none() {
                    let at = world.thread(id)?;
                    self.kill(at);
                }
                Ok(one(Answer::Ok))
            }
            _ => {
                if line.thread.is_some_and(|id| world.thread(id).is_ok()) {
                    return Err(Wrong);
                }
                let begun = self.begin(space, &line.command)?;
                Ok(one(self.finish(line.thread, begun)))
            }
        }
    }

    fn begin_world(&mut self, frames: usize) -> Result<Answer, Wrong> {
        if self.world.is_some() {
            return Err(Wrong);
        }
        let Some(memory) = self.machine.memory(frames) else { return Ok(Answer::NO_MEMORY) };
        let table = self.machine.empty_table();
        let space = table.and_then(|table| AddressSpace::try_new(memory, table, SPACE));
        Ok(match space {
            Ok(space) => {
                self.world = Some(World::new(memory, frames, space));
                Answer::Ok
            }
            Err(_) => Answer::NO_MEMORY,
        })
    }

    /// Goes on with what was begun, as far as that goes.
    fn finish(&mut self, id: Option<&str>, begun: Begun<M::Thread>) -> String {
        let (thread, doing, answer) = match begun {
            Begun::Answer(answer) => {
                self.settle();
                (None, Doing::Nothing, Some(answer))
            }
            Begun::Thread(thread, doing) => (Some(thread), doing, None),
        };
        let Some(world) = &mut self.world else { return String::new() };
        if let Some(id) = id {
            world.ended.remove(id);
        }
        world.threads.push(Running { id: id.map(String::from), thread, doing, answer });
        let at = world.threads.len() - 1;
        if answer.is_none() {
            self.settle();
        }
        let Some(world) = &mut self.world else { return String::new() };
        let answer = world.threads[at].answer;
        match (id, answer) {
            (Some(_), Some(answer)) => format!("done {answer}"),
            (Some(_), None) => self.parked(at),
            (None, Some(answer)) => answer.to_string(),
            (None, None) => {
                let parked = self.parked(at);
                self.kill(at);
                parked
            }
        }
    }

    fn forget(&mut self, at: usize) -> Option<Running<M::Thread>> {
        self.world.as_mut().map(|world| world.threads.remove(at))
    }

    /// What a thread waits for.
    fn parked(&mut self, at: usize) -> String {
        let Some(world) = &mut self.world else { return String::new() };
        let running = &mut world.threads[at];
        let reason = match running.thread.as_mut().map(|thread| self.machine.progress(thread)) {
            Some(Progress::Parked(reason)) => reason,
            _ => WaitReason::Other,
        };
        let in_line = match running.doing {
            Doing::Access(target) => {
                target.block.is_some_and(|(file, block)| world.files[file].pager.is_in_line(block))
            }
            _ => false,
        };
        // It waits for a page, but that waits for a frame.
        let reason = if in_line { WaitReason::Memory } else { reason };
        format!("parked {}", reason.to_string().replace(' ', "-"))
    }

    /// Ends a thread wherever it is.
    fn kill(&mut self, at: usize) {
        let Some(running) = self.forget(at) else { return };
        if let Some(thread) = running.thread {
            self.machine.kill(thread);
            self.machine.settle();
        }
        if let (Doing::Access(target), Some(world)) = (running.doing, &self.world)
            && let Some((file, block)) = target.block
        {
            let same = |other: &Running<M::Thread>| {
                other.answer.is_none()
                    && matches!(other.doing, Doing::Access(other) if other.block == target.block)
            };
            // A load that has not begun, and that nobody wants any more, leaves nothing.
            let File { pager, object, .. } = &world.files[file];
            if pager.is_in_line(block) && !world.threads.iter().any(same) {
                drop(object.invalidate(PageIndex::new(block)));
                pager.give_up(block);
            }
        }
        self.settle();
    }

    /// Lets everything happen that can happen without another command.
    ///
    /// Where a fault or a load waits for a frame, one clean page is reclaimed at a time.
    pub(crate) fn settle(&mut self) {
        loop {
            self.machine.settle();
            self.note_ended();
            let Some(world) = &mut self.world else { return };
            let stats = world.memory.frames().stats();
            if stats.quarantined > 0 {
                let memory = world.memory;
                self.do_now(async move { memory.settle().await });
            }
            let Some(world) = &self.world else { return };
            let first = world
                .files
                .iter()
                .filter_map(|file| Some((file.pager.first_in_line()?, file)))
                .min_by_key(|(since, _)| *since);
            if first.is_some_and(|(_, file)| file.pager.serve_first()) {
                continue;
            }
            let is_needed = first.is_some() || stats.waiting > 0;
            let spared = if first.is_none() { world.source_of_all(stats.waiting) } else { None };
            if !is_needed || !self.reclaim_one(spared) {
                return;
            }
        }
    }

    /// Gives back the clean page that was used longest ago, but not the one that is spared, and says whether there was one.
    fn reclaim_one(&mut self, spared: Option<(usize, u64)>) -> bool {
        let mut tried: BTreeSet<_> = spared.into_iter().collect();
        while let Some(world) = &self.world
            && let Some((file, block)) = world.oldest_clean(|page| !tried.contains(&page))
        {
            tried.insert((file, block));
            let object = world.files[file].object.clone();
            if self.do_now(async move { object.evict(PageIndex::new(block)).await }) == Some(true) {
                if let Some(world) = &mut self.world {
                    world.reclaimed.insert((file, block));
                }
                return true;
            }
        }
        false
    }

    /// Does what waits for other CPUs at most.
    pub(crate) fn do_now<R: Send + 'static>(
        &mut self,
        work: impl Future<Output = R> + Send + 'static,
    ) -> Option<R> {
        let slot = Arc::new(SpinLock::new("script result", None));
        let to = slot.clone();
        let work = async move {
            let result = work.await;
            *to.lock() = Some(result);
        };
        let thread = self.machine.start(Job::Work(Box::pin(work))).ok()?;
        self.machine.settle();
        drop(thread);
        slot.lock().take()
    }

    /// Notes which loads and threads have ended since, in order: threads in that of their start.
    fn note_ended(&mut self) {
        let Some(world) = &mut self.world else { return };
        for number in 0..world.files.len() {
            for (block, at) in world.files[number].pager.take_arrived() {
                world.book.loaded((Owner::File(number), block), at);
            }
        }
        for at in 0..world.threads.len() {
            let running = &mut world.threads[at];
            let Some(thread) = &mut running.thread else { continue };
            let Progress::Done(result) = self.machine.progress(thread) else { continue };
            running.thread = None;
            let answer = match &running.doing {
                Doing::Access(target) => {
                    let target = *target;
                    if result.is_ok() {
                        world.note_access(target);
                    }
                    match result {
                        Ok(_) if target.write => Answer::Ok,
                        Ok(value) => Answer::Value(value),
                        Err(why) => Answer::denied(why),
                    }
                }
                Doing::Nothing => Answer::Ok,
                Doing::Other(slot) => slot.lock().take().unwrap_or(Answer::NO_MEMORY),
                Doing::Close { file, slot } => {
                    let answer = slot.lock().take().unwrap_or(Answer::NO_MEMORY);
                    world.files[*file].closed |= answer == Answer::Ok;
                    answer
                }
                Doing::Unmap { space, mapping, slot } => {
                    let (space, mapping) = (*space, *mapping);
                    let answer = slot.lock().take().unwrap_or(Answer::NO_MEMORY);
                    if answer == Answer::Ok {
                        world.spaces[space].mappings.retain(|mapped| mapped.number != mapping);
                    }
                    answer
                }
                Doing::Fork { from, to, slot } => {
                    let (from, name, made) = (*from, to.clone(), slot.lock().take());
                    match made {
                        Some(Ok(space)) => {
                            world.enter_fork(from, name, space);
                            Answer::Ok
                        }
                        _ => Answer::NO_MEMORY,
                    }
                }
            };
            world.threads[at].answer = Some(answer);
        }
        // What one access alone does to the book is noted, but for pages that had to go. Those may stand in it until
        // somebody wants to know.
        if !matches!(world.threads[..], [Running { doing: Doing::Access(_), .. }]) {
            world.refresh_book();
        }
    }
}

impl<T> World<T> {
    /// A fork shows what its parent shows.
    fn enter_fork(&mut self, from: usize, name: String, space: Arc<AddressSpace>) {
        let mut mappings = self.spaces[from].mappings.clone();
        for mapping in &mut mappings {
            let parent = mapping.number;
            mapping.number = self.number(self.spaces.len());
            self.book.copy(parent, mapping.number);
        }
        self.spaces.push(Space { name, space, mappings });
    }
}

fn one(answer: impl ToString) -> Vec<String> {
    Vec::from([answer.to_string()])
}

fn log(requests: &[(Direction, u64)]) -> String {
    let mut line = String::from("log");
    for (direction, block) in requests {
        let word = match direction {
            Direction::Load => "load",
            Direction::Store => "store",
        };
        line += &format!(" {word}:{block}");
    }
    line
}
