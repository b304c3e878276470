//! The answer of `show`: pages, who shows them, and in which order they were used and written.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use mm::{PAGE_SIZE, PageState};

use crate::book::{Key, Owner, Times};
use crate::world::{MAIN, Mapped, Space, World};

/// A page as it is printed.
type Name = (String, u64);

/// All lines of the answer.
pub(crate) fn show<T>(world: &World<T>) -> Vec<String> {
    let mut pages: Vec<(Name, String)> = Vec::new();
    for (number, file) in world.files.iter().enumerate().filter(|(_, file)| !file.name.is_empty()) {
        for block in file.pager.wanted() {
            let state = file.state(block);
            if state != PageState::Absent {
                let shown = maps(world, state.frame(), |mapping| page_of(mapping, number, block));
                pages.push(((file.name.clone(), block), format!("{state} {shown}")));
            }
        }
    }
    let private = private_pages(world);
    for (&frame, name) in &private {
        let shown = maps(world, Some(frame), |mapping| mapping.is_private().then_some(name.1));
        pages.push((name.clone(), format!("dirty {shown}")));
    }
    pages.sort();
    let mut lines: Vec<_> =
        pages.into_iter().map(|((name, block), rest)| format!("page {name} {block} {rest}")).collect();
    lines.push(list("lru", world, &private, world.book.newest_first()));
    lines.push(list("dirty", world, &private, world.book.dirtied_last_first()));
    lines.push(format!("free {}", world.memory.frames().stats().free));
    lines.push("end".into());
    lines
}

/// The pages of private memory by their frames. What several spaces see has the name of the first of them.
fn private_pages<T>(world: &World<T>) -> BTreeMap<u64, Name> {
    let mut pages = BTreeMap::new();
    for (number, space) in world.spaces.iter().enumerate() {
        for mapping in space.mappings.iter().filter(|mapping| mapping.is_private()) {
            for &page in &mapping.written {
                if let Some(frame) = space.space.private_frame(mapping.at(page)) {
                    pages.entry(frame).or_insert_with(|| (name(number, space, mapping), page));
                }
            }
        }
    }
    pages
}

/// The page of a mapping that is to show a block of a file.
fn page_of(mapping: &Mapped, file: usize, block: u64) -> Option<u64> {
    let (of, first) = mapping.block(0)?;
    (of == file).then(|| block.checked_sub(first)).flatten()
}

/// Who shows a frame, as page tables say, by name; `page` says where a mapping would.
fn maps<T>(world: &World<T>, frame: Option<u64>, page: impl Fn(&Mapped) -> Option<u64>) -> String {
    let mut shown = Vec::new();
    for (number, space) in world.spaces.iter().enumerate() {
        for mapping in &space.mappings {
            let Some(page) = page(mapping).filter(|&page| page < mapping.pages) else { continue };
            let Some(walk) = space.space.walk(mapping.at(page)) else { continue };
            if Some(walk.address.as_u64() / PAGE_SIZE as u64) == frame {
                let rights = if walk.protection.write { "rw" } else { "ro" };
                shown.push(format!("{}:{rights}", name(number, space, mapping)));
            }
        }
    }
    if shown.is_empty() {
        return "-".into();
    }
    shown.sort();
    shown.join(",")
}

/// A mapping's name, with that of its space if it is not the first.
fn name(number: usize, space: &Space, mapping: &Mapped) -> String {
    if number == MAIN { mapping.name.clone() } else { format!("{}/{}", space.name, mapping.name) }
}

/// A line of pages. Those of a frame that several spaces see are one, where the first of them stands.
fn list<T>(word: &str, world: &World<T>, private: &BTreeMap<u64, Name>, pages: Vec<(Key, Times)>) -> String {
    let mut line = String::from(word);
    let mut seen = Vec::new();
    for ((owner, block), times) in pages {
        let (name, block) = match (owner, times.frame) {
            (Owner::File(file), _) if world.files[file].name.is_empty() => continue,
            (Owner::File(file), _) => (&world.files[file].name, block),
            (Owner::Private(_), Some(frame)) if !seen.contains(&frame) => {
                seen.push(frame);
                let Some((name, page)) = private.get(&frame) else { continue };
                (name, *page)
            }
            (Owner::Private(_), _) => continue,
        };
        line += &format!(" {name}:{block}");
    }
    line
}
