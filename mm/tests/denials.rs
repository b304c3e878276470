//! Why accesses are denied, each by its name.

mod common;

use common::tasks::block_on;
use common::{KERNEL_RANGE, Machine, PAGE, address, page};
use mm::{Access, Denial, FaultOutcome, ManualObject, PageError, Placement, Protection, VmObject};

const BASE: u64 = 0x40_0000;
const RW: Protection = Protection::READ_WRITE.for_user();

#[test]
fn each_denial_has_its_name() {
    let machine = Machine::new(64);
    let space = machine.user_space();
    let at = |index: u64| BASE + index * PAGE;
    let placed = |index| Placement::Fixed(address(at(index)));
    space.map_anonymous(1, Protection::READ.for_user(), placed(0)).unwrap();
    space.map_anonymous(1, Protection::READ_WRITE, placed(1)).unwrap();
    let manual = ManualObject::try_new(machine.memory, 1).unwrap();
    space.map_manual(&manual, page(0), 1, RW, placed(2)).unwrap();
    let pager = machine.pager();
    let file = VmObject::new(machine.memory, pager.clone(), 3);
    space.map(&file, page(0), 3, RW, placed(3)).unwrap();
    for (index, error) in
        [PageError::Io, PageError::Corrupted, PageError::OutOfMemory].into_iter().enumerate()
    {
        pager.fail(Some(page(index as u64)), 2, error);
    }
    space.set_stack(address(at(18))..address(at(20)), 1, RW).unwrap();
    let io = Denial::Io { page: page(0), error: PageError::Io };
    for (at, access, why) in [
        (at(9), Access::Read, Denial::NoMapping),
        (1 << 63, Access::Read, Denial::NoMapping),
        (at(0), Access::Write, Denial::Protection(Access::Write)),
        (at(0), Access::Execute, Denial::Protection(Access::Execute)),
        (at(1), Access::Read, Denial::UserTouchesKernel),
        (KERNEL_RANGE.start, Access::Read, Denial::UserTouchesKernel),
        (at(2), Access::Write, Denial::ManualPageMissing),
        (at(3), Access::Read, io),
        (at(4), Access::Read, Denial::Corrupted { page: page(1) }),
        (at(5), Access::Read, Denial::OutOfMemory),
        (at(17), Access::Read, Denial::StackOverflow),
    ] {
        let (target, mut fault) = (space.clone(), machine.fault(at, access));
        fault.user = true;
        let outcome = block_on(async move { target.resolve(fault).await });
        assert_eq!(outcome, FaultOutcome::Denied(why), "{at:#x}");
    }
    // Without a mapping, the same errors have the pager's names.
    let read = block_on(async move { file.read(PAGE, &mut [0]).await });
    assert_eq!(read, Err(PageError::Corrupted));
}
