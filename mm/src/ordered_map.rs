//! An ordered map whose nodes are made before they are needed, by who can still say no: the standard library's end the
//! machine when the heap is full.
//!
//! A treap: a search tree by key in which ranks, drawn at random, grow towards the root. So it is about as deep as a
//! balanced one, in whatever order keys come. Nothing here recurses: it works with spin locks held, on the stacks of
//! threads.

use alloc::boxed::Box;
use core::mem::MaybeUninit;

use crate::OutOfMemory;
use crate::fallible::{take_out, try_box};

struct Node<K, V> {
    key: K,
    value: V,
    /// At least that of the nodes below.
    rank: u64,
    left: Option<Box<Node<K, V>>>,
    right: Option<Box<Node<K, V>>>,
}

/// Memory for one entry.
pub(crate) struct Room<K, V>(Box<MaybeUninit<Node<K, V>>>);

impl<K, V> Room<K, V> {
    pub(crate) fn try_new() -> Result<Self, OutOfMemory> {
        try_box(MaybeUninit::uninit()).map(Room)
    }
}

/// Values by key.
pub(crate) struct OrderedMap<K, V> {
    root: Option<Box<Node<K, V>>>,
    len: usize,
    /// The state of the ranks' generator.
    random: u64,
}

impl<K, V> Default for OrderedMap<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0, random: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl<K: Ord + Copy, V> OrderedMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Enters a key that is not there.
    pub(crate) fn insert(&mut self, room: Room<K, V>, key: K, value: V) {
        debug_assert!(self.get(&key).is_none(), "a key is entered once");
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let rank = self.random;
        let mut place = &mut self.root;
        while place.as_ref().is_some_and(|node| node.rank >= rank) {
            let node = place.as_mut().expect("it was just seen");
            place = if key < node.key { &mut node.left } else { &mut node.right };
        }
        let mut rest = place.take();
        let node = place.insert(Box::write(room.0, Node { key, value, rank, left: None, right: None }));
        let (mut below, mut above) = (&mut node.left, &mut node.right);
        // What was there goes to the one side or the other.
        while let Some(mut node) = rest {
            if node.key < key {
                rest = node.right.take();
                below = &mut below.insert(node).right;
            } else {
                rest = node.left.take();
                above = &mut above.insert(node).left;
            }
        }
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.take(key).map(|(value, _)| value)
    }

    /// The same, with the memory for another entry.
    pub(crate) fn take(&mut self, key: &K) -> Option<(V, Room<K, V>)> {
        let mut place = &mut self.root;
        while place.as_ref().is_some_and(|node| node.key != *key) {
            let node = place.as_mut().expect("it was just seen");
            place = if *key < node.key { &mut node.left } else { &mut node.right };
        }
        let (node, room) = take_out(place.take()?);
        let (mut left, mut right) = (node.left, node.right);
        // What was below it takes its place, the higher ranks first.
        loop {
            match (left, right) {
                (None, rest) | (rest, None) => {
                    *place = rest;
                    break;
                }
                (Some(mut low), Some(high)) if low.rank >= high.rank => {
                    (left, right) = (low.right.take(), Some(high));
                    place = &mut place.insert(low).right;
                }
                (Some(low), Some(mut high)) => {
                    (left, right) = (Some(low), high.left.take());
                    place = &mut place.insert(high).left;
                }
            }
        }
        self.len -= 1;
        Some((node.value, Room(room)))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.at_or_after(key).filter(|(found, _)| *found == *key).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let mut place = &mut self.root;
        while place.as_ref().is_some_and(|node| node.key != *key) {
            let node = place.as_mut().expect("it was just seen");
            place = if *key < node.key { &mut node.left } else { &mut node.right };
        }
        place.as_mut().map(|node| &mut node.value)
    }

    /// The entry with this key, or with the next lower one.
    pub(crate) fn at_or_before(&self, key: &K) -> Option<(K, &V)> {
        let (mut node, mut found) = (self.root.as_deref(), None);
        while let Some(here) = node {
            if here.key <= *key {
                found = Some((here.key, &here.value));
                node = here.right.as_deref();
            } else {
                node = here.left.as_deref();
            }
        }
        found
    }

    /// The entry with this key, or with the next higher one.
    pub(crate) fn at_or_after(&self, key: &K) -> Option<(K, &V)> {
        let (mut node, mut found) = (self.root.as_deref(), None);
        while let Some(here) = node {
            if here.key >= *key {
                found = Some((here.key, &here.value));
                node = here.left.as_deref();
            } else {
                node = here.right.as_deref();
            }
        }
        found
    }

    /// The entry, where there is no other.
    pub(crate) fn only(&self) -> Option<(K, &V)> {
        self.root.as_ref().filter(|_| self.len == 1).map(|node| (node.key, &node.value))
    }

    /// Takes out the entry with the lowest key.
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)> {
        let mut node = self.root.as_deref()?;
        while let Some(lower) = node.left.as_deref() {
            node = lower;
        }
        let key = node.key;
        self.remove(&key).map(|value| (key, value))
    }
}

#[cfg(test)]
mod tests;
