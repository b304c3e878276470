//! What each command begins: spaces, mappings and accesses. Those about files are in `files`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use executor::lock::SpinLock;
use mm::{MapError, OutOfMemory, PageIndex, Placement, ReadAhead};

use crate::answer::Answer;
use crate::command::{Command, Source};
use crate::line::Wrong;
use crate::machine::{Job, Machine};
use crate::player::Player;
use crate::world::{Doing, Mapped, Shows, Slot, Space, Target, word_at};

/// What a command came to at once.
pub(crate) enum Begun<T> {
    Answer(Answer),
    /// A thread does it.
    Thread(T, Doing),
}

impl<T> From<Answer> for Begun<T> {
    fn from(answer: Answer) -> Self {
        Begun::Answer(answer)
    }
}

impl<M: Machine> Player<M> {
    /// Begins a command in a space.
    pub(crate) fn begin(&mut self, space: usize, command: &Command<'_>) -> Result<Begun<M::Thread>, Wrong> {
        match *command {
            Command::Map { name, source, pages } => self.map(space, name, source, pages).map(Begun::from),
            Command::Unmap(name) => self.unmap(space, name),
            Command::Read { mapping, page, word } => self.access(space, mapping, page, word, None),
            Command::Write { mapping, page, value, word } => {
                self.access(space, mapping, page, word, Some(value))
            }
            Command::Fork { from, to } => self.fork(from, to),
            Command::Reclaim(most) => Ok(self.reclaim(most)),
            Command::ReadAhead(on) => {
                let world = self.world.as_mut().ok_or(Wrong)?;
                world.memory.set_read_ahead(if on { ReadAhead::WhileFree } else { ReadAhead::Never });
                Ok(Answer::Ok.into())
            }
            _ => self.begin_with_file(command),
        }
    }

    fn map(&mut self, space: usize, name: &str, source: Source<'_>, pages: u64) -> Result<Answer, Wrong> {
        let allowed = self.machine.protection();
        let world = self.world.as_mut().ok_or(Wrong)?;
        if world.mapping(space, name).is_some() {
            return Err(Wrong);
        }
        let shows = match source {
            Source::Anonymous => Shows::Anonymous,
            Source::File { file, first, private } => {
                let file = world.file(file)?;
                let of = &world.files[file];
                if first.checked_add(pages).is_none_or(|end| end > of.blocks) {
                    return Err(Wrong);
                }
                if of.closed {
                    return Ok(Answer::Error("closed"));
                }
                Shows::File { file, first, private }
            }
        };
        let Some(start) = world.make_place(name, pages) else { return Ok(Answer::Error("places")) };
        let (at, space_of) = (Placement::Fixed(start), world.spaces[space].space.clone());
        let mapped = match shows {
            Shows::Anonymous => space_of.map_anonymous(pages, allowed, at),
            Shows::File { file, first, private } => {
                let (object, first) = (&world.files[file].object, PageIndex::new(first));
                if private {
                    space_of.map_private(object, first, pages, allowed, at)
                } else {
                    space_of.map(object, first, pages, allowed, at)
                }
            }
        };
        Ok(match mapped {
            Ok(_) => {
                let number = world.number(space);
                let name = String::from(name);
                let written = world.being_written(space, start, pages);
                let mapping = Mapped { number, name, start, pages, shows, written };
                world.spaces[space].mappings.push(mapping);
                Answer::Ok
            }
            Err(MapError::NoMemory) => Answer::NO_MEMORY,
            Err(_) => Answer::Error("mapping"),
        })
    }

    fn unmap(&mut self, space: usize, name: &str) -> Result<Begun<M::Thread>, Wrong> {
        let world = self.world.as_mut().ok_or(Wrong)?;
        world.place(name)?;
        let Some(mapping) = world.mapping(space, name) else { return Ok(Answer::Error("mapping").into()) };
        let (number, range) = (mapping.number, mapping.start..mapping.at(mapping.pages));
        let of = world.spaces[space].space.clone();
        let work = async move {
            match of.unmap(range).await {
                Ok(()) => Answer::Ok,
                Err(_) => Answer::NO_MEMORY,
            }
        };
        Ok(self.work(work, |slot| Doing::Unmap { space, mapping: number, slot }))
    }

    fn access(
        &mut self,
        space: usize,
        name: &str,
        page: u64,
        word: u64,
        value: Option<u64>,
    ) -> Result<Begun<M::Thread>, Wrong> {
        let world = self.world.as_mut().ok_or(Wrong)?;
        let place = world.place(name)?;
        let Space { space: of, mappings, .. } = &mut world.spaces[space];
        let mapping = mappings.iter_mut().find(|mapping| mapping.name == name);
        // In another space it may be where the name's mappings were before.
        let address = match &mapping {
            Some(mapping) if page < mapping.pages => word_at(mapping.start, page, word),
            _ => place.word(page, word),
        };
        let mut target =
            Target { space, at: address.page_start(), page, write: value.is_some(), block: None };
        if let Some(mapping) = mapping {
            target.block = mapping.block(page);
            if value.is_some() && mapping.is_private() && page < mapping.pages {
                mapping.written.insert(page);
            }
        }
        let job = match value {
            None => Job::Read(of.clone(), address),
            Some(value) => Job::Write(of.clone(), address, value),
        };
        Ok(match self.machine.start(job) {
            Ok(thread) => Begun::Thread(thread, Doing::Access(target)),
            Err(OutOfMemory) => Answer::NO_MEMORY.into(),
        })
    }

    fn fork(&mut self, from: &str, to: &str) -> Result<Begun<M::Thread>, Wrong> {
        let world = self.world.as_mut().ok_or(Wrong)?;
        let parent = world.space(from)?;
        if world.space(to).is_ok() {
            return Err(Wrong);
        }
        let space = world.spaces[parent].space.clone();
        let Ok(table) = self.machine.empty_table() else { return Ok(Answer::NO_MEMORY.into()) };
        let to = String::from(to);
        let work = async move { space.fork(table).await };
        Ok(self.work(work, |slot| Doing::Fork { from: parent, to, slot }))
    }

    /// Gives back up to `most` clean pages, those used longest ago first.
    fn reclaim(&mut self, most: u64) -> Begun<M::Thread> {
        let Some(world) = &self.world else { return Answer::NO_MEMORY.into() };
        let oldest = world.clean_oldest_first().into_iter();
        let pages: Vec<_> = oldest
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .map(|(file, block)| (world.files[file].object.clone(), PageIndex::new(block)))
            .collect();
        let work = async move {
            let mut count = 0;
            for (object, page) in pages {
                count += u64::from(object.evict(page).await);
            }
            Answer::Count(count)
        };
        self.work(work, Doing::Other)
    }

    /// Gives work to a thread, and a slot for what it brings.
    pub(crate) fn work<R: Send + 'static>(
        &mut self,
        work: impl Future<Output = R> + Send + 'static,
        doing: impl FnOnce(Slot<R>) -> Doing,
    ) -> Begun<M::Thread> {
        let slot: Slot<R> = Arc::new(SpinLock::new("script result", None));
        let to = slot.clone();
        let work = async move {
            let result = work.await;
            *to.lock() = Some(result);
        };
        match self.machine.start(Job::Work(Box::pin(work))) {
            Ok(thread) => Begun::Thread(thread, doing(slot)),
            Err(OutOfMemory) => Answer::NO_MEMORY.into(),
        }
    }
}
