//! The tree itself: nodes of 64 slots, the lowest of them chunks.

use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use crate::OutOfMemory;
use crate::fallible::Shared;
use crate::page_state::PageEntry;
use crate::slab::{Place, Slab};
use crate::transfer::Transfer;

/// Each node has 2^6 slots.
pub(super) const BITS: u32 = 6;
pub(super) const SLOTS: usize = 1 << BITS;

pub(super) enum Node {
    Inner(Place<[Option<Node>; SLOTS]>),
    Chunk(Place<Chunk>),
}

pub(super) struct Chunk {
    pub(super) entries: [PageEntry; SLOTS],
    /// Entries that are not absent.
    pub(super) used: u32,
    /// The transfers of pages of this chunk, at most one a page.
    pub(super) transfers: Transfers,
}

pub(super) type Transfers = Vec<Shared<Transfer>>;

impl Chunk {
    /// Sets an entry. Answers what it was, and how many are not absent now.
    #[inline]
    pub(super) fn replace(&mut self, index: u64, entry: PageEntry) -> (PageEntry, u32) {
        let old = core::mem::replace(&mut self.entries[slot(index, 0)], entry);
        self.used += u32::from(entry != PageEntry::ABSENT);
        self.used -= u32::from(old != PageEntry::ABSENT);
        (old, self.used)
    }
}

/// Takes out the transfer of a page, if there is one.
#[inline]
pub(super) fn take_transfer(transfers: &mut Transfers, index: u64) -> Option<Shared<Transfer>> {
    let position = transfers.iter().position(|transfer| transfer.page().as_u64() == index)?;
    Some(transfers.swap_remove(position))
}

/// Where the nodes of all indexes have their places.
pub(crate) struct Nodes {
    inner: Slab<[Option<Node>; SLOTS]>,
    chunks: Slab<Chunk>,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self { inner: Slab::new(), chunks: Slab::new() }
    }
}

pub(super) fn slot(index: u64, shift: u32) -> usize {
    (index >> shift) as usize % SLOTS
}

/// The chunk with a page's entry, below a root as an index has it.
#[inline]
pub(super) fn chunk_mut(root: &mut Option<Node>, end: u64, mut shift: u32, index: u64) -> Option<&mut Chunk> {
    let mut node = root.as_mut().filter(|_| index < end)?;
    loop {
        match node {
            Node::Chunk(chunk) => return Some(chunk),
            Node::Inner(nodes) => node = nodes[slot(index, shift)].as_mut()?,
        }
        shift -= BITS;
    }
}

/// Adds the nodes that are missing on the way to a page. Those added before one that cannot be stay.
pub(super) fn make_room(
    nodes: &'static Nodes,
    mut place: &mut Option<Node>,
    index: u64,
    mut shift: u32,
) -> Result<(), OutOfMemory> {
    loop {
        if place.is_none() {
            *place = Some(if shift == 0 {
                Node::Chunk(nodes.chunks.try_place(|| Chunk {
                    entries: [PageEntry::ABSENT; SLOTS],
                    used: 0,
                    transfers: Vec::new(),
                })?)
            } else {
                Node::Inner(nodes.inner.try_place(|| [const { None }; SLOTS])?)
            });
        }
        match place {
            Some(Node::Inner(below)) => place = &mut below[slot(index, shift)],
            _ => return Ok(()),
        }
        shift -= BITS;
    }
}

/// Removes the nodes on the way to a page that have nothing in them. The depth is that of the tree.
pub(super) fn give_up_room(place: &mut Option<Node>, index: u64, shift: u32) {
    let empty = match place {
        None => return,
        Some(Node::Chunk(chunk)) => chunk.used == 0,
        Some(Node::Inner(nodes)) => {
            give_up_room(&mut nodes[slot(index, shift)], index, shift - BITS);
            nodes.iter().all(Option::is_none)
        }
    };
    if empty {
        *place = None;
    }
}

/// Which slots of a node have pages of a range. The node begins with page `base`, and has pages of the range.
#[inline]
fn slots(base: u64, shift: u32, range: &Range<u64>) -> RangeInclusive<usize> {
    let from = range.start.saturating_sub(base) >> shift;
    let last = ((range.end - 1 - base) >> shift).min(SLOTS as u64 - 1);
    from as usize..=last as usize
}

/// Tells the pages of a node that are in `range` and not absent, as [`slots`] has them. The depth is that of the tree.
pub(super) fn for_each(
    node: &Node,
    base: u64,
    shift: u32,
    range: &Range<u64>,
    told: &mut impl FnMut(u64, PageEntry),
) {
    let slots = slots(base, shift, range);
    match node {
        Node::Chunk(chunk) => {
            for (index, &entry) in (base + *slots.start() as u64..).zip(&chunk.entries[slots]) {
                if entry != PageEntry::ABSENT {
                    told(index, entry);
                }
            }
        }
        Node::Inner(nodes) => {
            for (slot, node) in (*slots.start() as u64..).zip(&nodes[slots]) {
                if let Some(node) = node {
                    for_each(node, base + (slot << shift), shift - BITS, range, told);
                }
            }
        }
    }
}

/// The first page of a node that is in `range` and not absent.
pub(super) fn next_used(node: &Node, base: u64, shift: u32, range: &Range<u64>) -> Option<(u64, PageEntry)> {
    let mut slots = slots(base, shift, range);
    match node {
        Node::Chunk(chunk) => slots
            .map(|slot| (base + slot as u64, chunk.entries[slot]))
            .find(|&(_, entry)| entry != PageEntry::ABSENT),
        Node::Inner(nodes) => slots.find_map(|slot| {
            next_used(nodes[slot].as_ref()?, base + ((slot as u64) << shift), shift - BITS, range)
        }),
    }
}
