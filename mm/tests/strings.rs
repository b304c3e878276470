//! Strings of programs, as system calls read them.

mod common;

use std::sync::Arc;

use common::shown::RW;
use common::tasks::block_on;
use common::{KERNEL_RANGE, Machine, PAGE, USER_RANGE, address, page, range};
use mm::{Access, AddressSpace, Denial, PageError, Placement, Protection, StrError, VmObject};

const BASE: u64 = 0x40_0000;
const PAGES: u64 = 3;
const END: u64 = BASE + PAGES * PAGE;

/// A space with three pages of memory that is full of `x`.
fn scene() -> (&'static Machine, Arc<AddressSpace>) {
    let machine = Machine::new(100);
    let space = machine.user_space();
    space.map_anonymous(PAGES, RW, Placement::Fixed(address(BASE))).unwrap();
    put(&space, BASE, &[b'x'; (PAGES * PAGE) as usize]);
    (machine, space)
}

fn put(space: &Arc<AddressSpace>, at: u64, bytes: &[u8]) {
    let (space, bytes) = (space.clone(), bytes.to_vec());
    block_on(async move { space.copy_out(at, &bytes).await }).unwrap();
}

/// The string at an address, within a length.
fn string(space: &Arc<AddressSpace>, at: u64, limit: usize) -> Result<Vec<u8>, StrError> {
    let space = space.clone();
    block_on(async move {
        let mut to = vec![0xee; limit];
        let length = space.copy_str(at, &mut to).await?;
        assert_eq!(to[length], 0, "the NUL is copied, too");
        to.truncate(length);
        Ok(to)
    })
}

fn denied<T>(address: u64, why: Denial) -> Result<T, StrError> {
    Err(StrError::Denied { address, why })
}

#[test]
fn a_string_ends_before_its_nul_wherever_its_pages_end() {
    let (_, space) = scene();
    put(&space, BASE + 5, b"\0");
    assert_eq!(string(&space, BASE, 100), Ok(b"xxxxx".to_vec()));
    assert_eq!(string(&space, BASE + 5, 100), Ok(Vec::new()));
    put(&space, BASE + 2 * PAGE + 1, b"\0");
    let length = (PAGE + 2) as usize;
    assert_eq!(string(&space, BASE + PAGE - 1, 10_000), Ok(vec![b'x'; length]));
}

#[test]
fn a_string_without_an_end_within_its_length_is_too_long() {
    let (_, space) = scene();
    put(&space, BASE + 5, b"\0");
    assert_eq!(string(&space, BASE, 6), Ok(b"xxxxx".to_vec()));
    assert_eq!(string(&space, BASE, 5), Err(StrError::TooLong));
    assert_eq!(string(&space, BASE, 0), Err(StrError::TooLong));
    // Nothing behind the length is looked at.
    assert_eq!(string(&space, END - 8, 8), Err(StrError::TooLong));
}

#[test]
fn a_string_that_ends_just_before_a_bad_page_is_fine() {
    let (_, space) = scene();
    put(&space, END - 1, b"\0");
    assert_eq!(string(&space, END - 8, 4096), Ok(vec![b'x'; 7]));
}

#[test]
fn the_first_byte_that_cannot_be_read_is_named() {
    let (machine, space) = scene();
    assert_eq!(string(&space, END - 8, 9), denied(END, Denial::NoMapping));
    assert_eq!(string(&space, END + 7, 9), denied(END + 7, Denial::NoMapping));
    let (target, unreadable) = (space.clone(), Protection::default().for_user());
    block_on(async move { target.protect(range(address(BASE + PAGE), 1), unreadable).await }).unwrap();
    let why = Denial::Protection(Access::Read);
    assert_eq!(string(&space, BASE + 3, 10_000), denied(BASE + PAGE, why));
    let pager = machine.pager();
    let object = VmObject::new(machine.memory, pager.clone(), 1);
    space.map(&object, page(0), 1, RW, Placement::Fixed(address(END))).unwrap();
    pager.fail(Some(page(0)), 1, PageError::Io);
    let why = Denial::Io { page: page(0), error: PageError::Io };
    assert_eq!(string(&space, END - 1, 10_000), denied(END, why));
}

#[test]
fn any_number_may_be_handed_over() {
    let (_, space) = scene();
    let kernel = KERNEL_RANGE.start;
    for (at, limit, why) in [
        (0, 9, denied(0, Denial::NoMapping)),
        (kernel, 9, denied(kernel, Denial::UserTouchesKernel)),
        (u64::MAX, 9, denied(u64::MAX, Denial::UserTouchesKernel)),
        (USER_RANGE.end, 9, denied(USER_RANGE.end, Denial::NoMapping)),
        (0x8000_0000_0000, 9, denied(0x8000_0000_0000, Denial::NoMapping)),
        (1 << 63, 9, denied(1 << 63, Denial::NoMapping)),
    ] {
        assert_eq!(string(&space, at, limit), why, "{at:#x}");
    }
}

#[test]
fn a_string_at_the_end_of_all_addresses_does_not_wrap_around() {
    // The last page that a space can have, and no byte after it.
    let machine = Machine::new(100);
    let space = machine.window();
    let last = KERNEL_RANGE.end - PAGE;
    space.map_anonymous(1, Protection::READ_WRITE, Placement::Fixed(address(last))).unwrap();
    put(&space, last, &[b'x'; PAGE as usize]);
    assert_eq!(string(&space, last + PAGE - 3, 9), denied(KERNEL_RANGE.end, Denial::NoMapping));
    assert_eq!(string(&space, u64::MAX - 2, 9), denied(u64::MAX - 2, Denial::NoMapping));
}
