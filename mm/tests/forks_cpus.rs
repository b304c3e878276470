//! Forks on several CPUs, one of which stands in the middle of a poll while what is forked goes.

mod common;

use std::pin::pin;

use common::cpus::{Busy, poll_once};
use common::shown::{BASE, RW, at_base};
use common::{Machine, PAGE, address, range};
use executor::host::block_on_cpus;
use mm::{Denial, Placement};

#[test]
fn a_fork_leaves_out_what_is_being_unmapped_also_when_its_version_has_ended() {
    block_on_cpus(2, async {
        let machine = Machine::with_cpus(100);
        let space = machine.user_space();
        let beside = BASE + 8 * PAGE;
        space.map_anonymous(2, RW, at_base()).unwrap();
        space.map_anonymous(1, RW, Placement::Fixed(address(beside))).unwrap();
        machine.write(&space, BASE, 1).await.unwrap();
        machine.write(&space, beside, 2).await.unwrap();
        let busy = Busy::begin(machine).await;
        assert!(busy.writes(space.root(), beside, 3));
        let mut unmap = pin!(space.unmap(range(address(BASE), 2)));
        assert!(poll_once(unmap.as_mut()).is_pending());
        let mut fork = Box::pin(space.fork(machine.empty_table()));
        assert!(poll_once(fork.as_mut()).is_pending());
        assert!(busy.writes(space.root(), beside, 4), "before the fork is done");
        busy.end().await;
        unmap.await.unwrap();
        let twin = fork.await.unwrap();
        assert_eq!(machine.read(&twin, BASE).await, Err(Denial::NoMapping));
        assert_eq!(machine.read(&twin, beside).await, Ok(4));
    });
}
