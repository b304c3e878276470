//! What the executor needs of this machine.

use executor::Platform;

use crate::{arch::registers, clock};

struct Machine;

impl Platform for Machine {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn set_alarm(&self, deadline: u64) {
        clock::set_alarm(deadline);
    }

    fn kick(&self, _cpu: u32) {
        // One CPU runs tasks: whoever could kick it runs on it, and it is not idle.
    }

    fn idle(&self) {
        registers::enable_and_halt();
    }
}

/// Hands this machine to the executor. Once at boot.
pub(crate) fn init() {
    executor::init(&Machine);
}
