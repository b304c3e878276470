//! What commands about files begin.

use alloc::string::String;
use alloc::sync::Arc;

use mm::{PageIndex, VmObject};

use crate::answer::Answer;
use crate::begin::Begun;
use crate::command::{Command, WriteOut};
use crate::line::Wrong;
use crate::machine::Machine;
use crate::pager::FilePager;
use crate::player::Player;
use crate::world::{Doing, File};

impl<M: Machine> Player<M> {
    /// Begins a command that names a file.
    pub(crate) fn begin_with_file(&mut self, command: &Command<'_>) -> Result<Begun<M::Thread>, Wrong> {
        let name = match *command {
            Command::File { name, blocks, overlay } => return self.make_file(name, blocks, overlay),
            Command::Close(file)
            | Command::WriteOut(_, file)
            | Command::Invalidate(file, _)
            | Command::Fail { file, .. }
            | Command::Heal(file)
            | Command::Poke { file, .. }
            | Command::Hold(file)
            | Command::Release(file, _) => file,
            _ => return Err(Wrong),
        };
        let world = self.world.as_mut().ok_or(Wrong)?;
        let number = world.file(name)?;
        let file = &mut world.files[number];
        let check = |block| if block < file.blocks { Ok(()) } else { Err(Wrong) };
        match *command {
            Command::Fail { block, .. } | Command::Poke { block, .. } => check(block)?,
            Command::Release(_, Some(block)) => check(block)?,
            _ => {}
        }
        if file.closed {
            return Ok(Answer::Error("closed").into());
        }
        let (object, pager) = (file.object.clone(), file.pager.clone());
        let answer = match *command {
            Command::Invalidate(_, block) if block >= file.blocks => Answer::Error("range"),
            Command::Invalidate(_, block) => {
                let work = async move {
                    object.invalidate(PageIndex::new(block)).await;
                    Answer::Ok
                };
                return Ok(self.work(work, Doing::Other));
            }
            Command::WriteOut(what, _) => return Ok(self.work(write_out(what, object), Doing::Other)),
            Command::Close(_) => {
                // What the device has not taken is nobody's to wait for.
                pager.give_up_line();
                let work = async move {
                    let result = object.close_with_base().await;
                    result.map_or_else(|why| Answer::not_stored(why.error), |()| Answer::Ok)
                };
                return Ok(self.work(work, |slot| Doing::Close { file: number, slot }));
            }
            Command::Fail { direction, block, times, .. } => {
                pager.fail(direction, block, times);
                Answer::Ok
            }
            Command::Heal(_) => {
                pager.heal();
                Answer::Ok
            }
            Command::Poke { block, value, .. } => {
                pager.poke(block, value);
                Answer::Ok
            }
            Command::Hold(_) => {
                pager.hold();
                Answer::Ok
            }
            Command::Release(_, Some(block)) => Answer::Count(pager.release(block)),
            Command::Release(_, None) => Answer::Count(pager.release_all()),
            _ => return Err(Wrong),
        };
        Ok(answer.into())
    }

    fn make_file(&mut self, name: &str, blocks: u64, overlay: bool) -> Result<Begun<M::Thread>, Wrong> {
        let world = self.world.as_mut().ok_or(Wrong)?;
        if world.file(name).is_ok() {
            return Err(Wrong);
        }
        let pager = Arc::new(FilePager::new(world.clock.clone()));
        let Ok(object) = VmObject::try_new(world.memory, pager.clone(), blocks) else {
            return Ok(Answer::NO_MEMORY.into());
        };
        let file = File { name: String::from(name), blocks, pager, object, closed: false, base: None };
        if !overlay {
            world.files.push(file);
            return Ok(Answer::Ok.into());
        }
        let Ok(object) = VmObject::try_overlay(file.object.clone()) else {
            return Ok(Answer::NO_MEMORY.into());
        };
        let base = File { name: String::new(), ..file.clone() };
        let overlay = File { object, base: Some(world.files.len()), ..file };
        world.files.extend([base, overlay]);
        Ok(Answer::Ok.into())
    }
}

fn all(object: &VmObject) -> core::ops::Range<PageIndex> {
    PageIndex::new(0)..PageIndex::new(object.pages())
}

async fn write_out(what: WriteOut, object: Arc<VmObject>) -> Answer {
    let pages = all(&object);
    let result = match what {
        WriteOut::Store => object.store(pages).await,
        WriteOut::StoreAndMark => object.store_and_mark(pages).await.map(|_| ()),
        WriteOut::Mark => {
            object.mark(pages).await;
            Ok(())
        }
        WriteOut::Discard => {
            object.discard(pages).await;
            Ok(())
        }
    };
    result.map_or_else(|why| Answer::not_stored(why.error), |()| Answer::Ok)
}
