//! Steps of a fork and of a merge that from outside are too short to aim at.

use alloc::sync::Arc;

use super::{Ending, PrivateObject, VersionId};
use crate::settle::{Attempt, Offer};
use crate::window::arena;
use crate::{Advice, Frame, Memory};

const PAGES: u64 = 300;

struct Scene {
    memory: &'static Memory,
    object: Arc<PrivateObject>,
    version: VersionId,
}

fn scene() -> Scene {
    let memory = arena::memory(1000);
    let (object, version) = PrivateObject::try_new(memory, None, PAGES).expect("there is memory");
    object.inner.lock().versions.add_user(version);
    Scene { memory, object, version }
}

impl Scene {
    /// Writes the page, and says which frame it has.
    fn write(&self, version: VersionId, index: u64) -> Result<u64, Attempt> {
        let mut found = 0;
        let attempt = self.object.touch(
            version,
            index,
            true,
            Advice::Normal,
            &mut None,
            |offer: Offer, _: &mut Option<Frame>| {
                assert!(offer.writable);
                found = offer.frame;
                Attempt::Done
            },
        );
        if matches!(attempt, Attempt::Done) { Ok(found) } else { Err(attempt) }
    }

    fn fork(&self, number: u64) -> VersionId {
        let twin = self.object.fork(self.version, number).expect("there is memory");
        self.object.inner.lock().versions.add_user(twin);
        twin
    }

    fn settle(&self, number: u64) {
        let moment = self.memory.frames().moment();
        self.object.settle(self.version, number, moment);
        self.memory.forget_soon(moment);
        assert!(self.memory.frames().is_over(moment));
    }

    fn end(&self, version: VersionId) {
        let ended = self.object.inner.lock().versions.remove_user(version);
        drop(Ending::new(&self.object, ended.expect("it was the only user")));
    }

    fn versions(&self) -> usize {
        self.object.inner.lock().versions.count()
    }
}

#[test]
fn nobody_writes_to_the_past_before_a_fork_is_settled() {
    let scene = scene();
    scene.write(scene.version, 0).ok().expect("there is memory");
    let twin = scene.fork(1);
    for version in [scene.version, twin] {
        assert!(matches!(scene.write(version, 0), Err(Attempt::Forgetting(_))));
        assert!(scene.write(version, 1).is_ok(), "nobody had this page");
    }
    scene.settle(1);
    for version in [scene.version, twin] {
        assert!(scene.write(version, 0).is_ok());
    }
}

#[test]
fn the_same_fork_makes_one_twin_and_the_next_another() {
    let scene = scene();
    let twin = scene.object.fork(scene.version, 1).expect("there is memory");
    assert_eq!(scene.object.fork(scene.version, 1).expect("there is memory"), twin);
    assert_eq!(scene.versions(), 3);
    assert_ne!(scene.object.fork(scene.version, 2).expect("there is memory"), twin);
    assert_eq!(scene.versions(), 5);
}

#[test]
fn a_past_is_merged_with_what_is_left_whichever_has_more() {
    for (before, after) in [(200, 3), (3, 200), (150, 150), (0, 100), (100, 0)] {
        let scene = scene();
        let free = scene.memory.frames().stats().free;
        for index in 0..before {
            scene.write(scene.version, index).ok().expect("there is memory");
        }
        let twin = scene.fork(1);
        scene.settle(1);
        // Some of what was there, and some more.
        let mut frames = [0; PAGES as usize];
        for index in PAGES - after..PAGES {
            frames[index as usize] = scene.write(scene.version, index).ok().expect("there is memory");
        }
        for index in 0..after.min(before) {
            frames[index as usize] = scene.write(scene.version, index).ok().expect("there is memory");
        }
        scene.end(twin);
        assert_eq!(scene.versions(), 1, "{before} before, {after} after");
        let seen = free - scene.memory.frames().stats().free;
        let expected = (0..PAGES).filter(|&index| index < before || index >= PAGES - after).count();
        assert_eq!(seen, expected, "{before} before, {after} after");
        for (index, &frame) in frames.iter().enumerate().filter(|(_, frame)| **frame != 0) {
            assert_eq!(scene.write(scene.version, index as u64).ok(), Some(frame), "its own page stays");
        }
        scene.end(scene.version);
        assert_eq!(scene.memory.frames().stats().free, free);
    }
}

#[test]
fn ten_thousand_rounds_leave_one_version_so_a_page_is_found_at_the_first_look_whoever_goes_on() {
    for child_goes_on in [false, true] {
        let mut scene = scene();
        for round in 0..10_000 {
            scene.write(scene.version, round % 5).ok().expect("there is memory");
            let twin = scene.fork(round);
            scene.settle(round);
            assert_eq!(scene.versions(), 3, "both and what both see, in round {round}");
            for (version, index) in [(scene.version, round % 7), (twin, round % 3)] {
                scene.write(version, index).ok().expect("there is memory");
            }
            let ends = if child_goes_on { core::mem::replace(&mut scene.version, twin) } else { twin };
            scene.end(ends);
            assert_eq!(scene.versions(), 1, "after round {round}");
        }
    }
}

#[test]
fn a_past_that_is_not_settled_is_merged_later() {
    let scene = scene();
    scene.write(scene.version, 0).ok().expect("there is memory");
    let twin = scene.fork(1);
    scene.end(twin);
    assert_eq!(scene.versions(), 2);
    assert!(matches!(scene.write(scene.version, 0), Err(Attempt::Forgetting(_))), "the past is as it was");
    scene.settle(1);
    // The next fork waits for what is in that past as well, which is the version's alone.
    let twin = scene.fork(2);
    assert!(matches!(scene.write(twin, 0), Err(Attempt::Forgetting(_))));
    scene.settle(2);
    assert!(scene.write(twin, 0).is_ok());
}

#[test]
fn a_past_that_nobody_is_left_of_ends_with_the_last() {
    let scene = scene();
    let free = scene.memory.frames().stats().free;
    scene.write(scene.version, 0).ok().expect("there is memory");
    let first = scene.fork(1);
    scene.settle(1);
    scene.write(scene.version, 1).ok().expect("there is memory");
    // The second fork is never settled, so nothing is merged.
    let second = scene.fork(2);
    scene.end(second);
    assert_eq!(scene.versions(), 4);
    scene.end(scene.version);
    assert_eq!(scene.versions(), 1, "the first twin has all that is left");
    assert_eq!(scene.memory.frames().stats().free, free - 1);
    scene.end(first);
    assert_eq!((scene.versions(), scene.memory.frames().stats().free), (0, free));
}
