//! Calls that take their time: what they change for the model at their first poll, and at their end.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use mm::{MapError, PageIndex, Protection, reclaim, swap_out};

use crate::common::{address, page, range};
use crate::model::{PAGES, ROOM, Shows, Slot, WORDS, Words};
use crate::steps::{Call, Shown, shown_pages};
use crate::world::{Space, World, at, placed};

fn rights(rights: u8) -> Protection {
    Protection { read: rights > 0, write: rights == 2, execute: false, user: true }
}

async fn first_poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// The end of a call of which the first poll was made.
async fn rest<F: Future>(first: Poll<F::Output>, future: Pin<&mut F>) -> F::Output {
    match first {
        Poll::Ready(output) => output,
        Poll::Pending => future.await,
    }
}

fn refused<T>(first: &Poll<Result<T, MapError>>) -> Option<MapError> {
    if let Poll::Ready(Err(why)) = first { Some(*why) } else { None }
}

/// What is undone when a call ends in any way.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn pages_of(at: usize, pages: usize) -> (Range<usize>, Range<mm::VirtAddr>) {
    let pages = at..(at + pages).min(ROOM);
    (pages.clone(), range(address(crate::world::at(at)), pages.len() as u64))
}

fn in_file(first: usize, pages: usize) -> (Range<usize>, Range<PageIndex>) {
    let pages = first..(first + pages).min(PAGES);
    (pages.clone(), page(pages.start as u64)..page(pages.end as u64))
}

/// Does a call to its end.
pub(crate) async fn make(world: Arc<World>, space: Space, call: Call) {
    let memory = world.host.machine.memory;
    match call {
        Call::Access { at, word, access } => world.access(&space, at, word, access).await,
        Call::CopyIn { at } => world.copy_in(&space, at).await,
        Call::CopyOut { at } => world.copy_out(&space, at).await,
        Call::Map { at, pages, shown } => map(&world, &space, at, pages, shown),
        Call::Unmap { at, pages } => {
            let (pages, range) = pages_of(at, pages);
            let mut unmap = pin!(space.space.unmap(range));
            let first = first_poll(unmap.as_mut()).await;
            let number = world.model().unmap(space.number, pages);
            assert_eq!(rest(first, unmap).await, Ok(()));
            world.model().gone(number);
        }
        Call::Protect { at, pages, rights: which } => {
            let (pages, range) = pages_of(at, pages);
            let mut protect = pin!(space.space.protect(range, rights(which)));
            let first = first_poll(protect.as_mut()).await;
            let began = world.model().protect(space.number, pages.clone(), which, refused(&first));
            if rest(first, protect).await.is_ok() {
                world.model().protected(space.number, pages, which, began);
            }
        }
        Call::Remap { at: from, old, pages, to } => {
            let ((from, old), (to, new)) = (pages_of(from, old), pages_of(to, pages));
            let mut remap = pin!(space.space.remap(old, to.len() as u64, placed(to.start)));
            let first = first_poll(remap.as_mut()).await;
            let number = world.model().remap(space.number, from, to, refused(&first));
            if let Ok(moved) = rest(first, remap).await {
                assert_eq!(moved, new.start);
                world.model().gone(number);
            }
        }
        Call::Fork => fork(&world, &space).await,
        Call::Store { first, pages } => {
            let (pages, range) = in_file(first, pages);
            let begun = world.model().store(pages);
            if world.file.store(range).await.is_ok() {
                world.model().stored(begun, |page| world.on_disk(page));
            }
        }
        Call::StoreAndMark { first, pages } => {
            let (pages, range) = in_file(first, pages);
            let _clean = cleaning(&world);
            let begun = world.model().store(pages);
            if world.file.store_and_mark(range).await.is_ok() {
                world.model().stored(begun, |page| world.on_disk(page));
            }
        }
        Call::Flush => {
            let _clean = cleaning(&world);
            let begun = world.model().store(0..PAGES);
            if world.file.flush().await.is_ok() {
                world.model().stored(begun, |page| world.on_disk(page));
            }
        }
        Call::Mark { first, pages } => {
            let (pages, range) = in_file(first, pages);
            let _clean = cleaning(&world);
            world.model().mark(pages);
            let _over = AtEnd(|| world.model().not_marked());
            world.file.mark(range).await;
        }
        Call::Discard { first, pages } => {
            let (pages, range) = in_file(first, pages);
            let dirty: Vec<_> = pages.filter(|&index| world.is_dirty(index)).collect();
            let cells = world.model().drop_pages(&dirty);
            world.file.discard(range).await;
            world.model().dropped(&cells);
        }
        Call::Release { first, pages } => {
            let (pages, range) = in_file(first, pages);
            let cells = world.model().drop_pages(&pages.collect::<Vec<_>>());
            world.file.release(range).await;
            world.model().dropped(&cells);
        }
        Call::ReplaceGiven { at } => replace_given(&world, &space, at).await,
        Call::ReleaseOther => world.other.release(page(0)..page(PAGES as u64)).await,
        Call::Reclaim { pages } => drop(reclaim(memory, pages).await),
        Call::SwapOut { pages } => drop(swap_out(memory, pages).await),
    }
}

/// A call that makes pages clean, until it ends.
fn cleaning(world: &World) -> AtEnd<impl FnMut()> {
    world.model().clean();
    AtEnd(|| world.model().cleaned(|index| !world.is_dirty(index)))
}

/// Another frame is shown in the place of one that was given.
async fn replace_given(world: &World, space: &Space, at: usize) {
    let Some(mut frame) = world.host.machine.memory.frames().try_alloc_zeroed() else { return };
    let new: Words = std::array::from_fn(|_| world.value());
    let bytes = new.iter().flat_map(|word| word.to_le_bytes());
    frame.as_bytes_mut().iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    let mut replace = pin!(space.space.remap_manual(address(crate::world::at(at)), Some(frame)));
    let first = first_poll(replace.as_mut()).await;
    let cell = world.model().replace(space.number, at, new, refused(&first));
    if let Ok(old) = rest(first, replace).await {
        let old = old.expect("each page has a frame");
        world.model().replaced(cell, crate::world::words(&old.as_bytes()[..WORDS * 8]));
    }
}

async fn fork(world: &Arc<World>, space: &Space) {
    let machine = world.host.machine;
    let mut fork = pin!(space.space.fork(machine.empty_table()));
    let first = first_poll(fork.as_mut()).await;
    let number = world.model().fork(space.number);
    let _over = AtEnd(|| world.model().not_forked(number));
    let twin = rest(first, fork).await.unwrap();
    let number = world.model().forked(number);
    world.adds(Space { number, space: twin });
}

pub(crate) fn map(world: &World, space: &Space, at_page: usize, pages: usize, shown: Shown) {
    let pages = pages.min(ROOM - at_page).min(shown_pages(shown));
    let (count, there, all) = (pages as u64, placed(at_page), rights(2));
    let told = match shown {
        Shown::Zeros => space.space.map_anonymous(count, all, there),
        Shown::Private { first } => {
            space.space.map_private(&world.other, page(first as u64), count, all, there)
        }
        Shown::File { first } => space.space.map(&world.file, page(first as u64), count, all, there),
        Shown::Shared => space.space.map_shared(&world.shared, page(0), count, all, there),
        Shown::Given => space.space.map_manual(&world.given, page(0), count, all, there),
    };
    let told = told.map(|start| assert_eq!(start.as_u64(), at(at_page)));
    let mut model = world.model();
    let shows = |model: &mut crate::model::Model, page: usize| match shown {
        Shown::Zeros => model.own(None),
        Shown::Private { first } => model.own(Some(first + page)),
        Shown::File { first } => Shows::File(first + page),
        Shown::Shared => Shows::Shared(page),
        Shown::Given => Shows::Given(page),
    };
    let slots: Vec<_> = (0..pages).map(|page| Slot { shows: shows(&mut model, page), rights: 2 }).collect();
    model.map(space.number, at_page, &slots, told);
}
