//! Accesses that are not allowed end the thread that made them, with the reason, and nobody else.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use kernel::{
    memory::memory,
    thread::{EndReason, call},
    window::Window,
};
use mm::{Access, Denial, PAGE_SIZE, Protection, VmObject};

use crate::{
    check::{Needed, Outcome, ensure, eventually},
    crew::Crew,
    pages,
    ring3::{self, CODE, DATA},
    usage, wild,
};

/// Somebody who works on while others end.
struct Bystander {
    turns: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    crew: Crew,
}

impl Bystander {
    fn start() -> Result<Self, crate::check::Failure> {
        let turns = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut crew = Crew::default();
        let (counter, end) = (turns.clone(), stop.clone());
        crew.add("bystander", move || {
            while !end.load(Relaxed) {
                counter.fetch_add(1, Relaxed);
                call::yield_now();
            }
        })?;
        Ok(Self { turns, stop, crew })
    }

    async fn still_works(&self) -> Outcome {
        let turns = self.turns.load(Relaxed);
        eventually("the others go on", || self.turns.load(Relaxed) > turns).await
    }

    async fn stop(self) -> Outcome {
        self.stop.store(true, Relaxed);
        self.crew.finish().await
    }
}

/// What is done, the access, where, and why it is denied.
type Offence = (&'static str, fn(u64), u64, Denial);

/// What a kernel thread may not do to memory.
pub(crate) async fn denied_accesses_end_the_thread() -> Outcome {
    usage::stays_equal(3, |_| async {
        let bystander = Bystander::start()?;
        let (_pager, object) = pages::test_object(2);
        let readable = pages::window(&object, 2)?;
        let zero = VmObject::zero(memory(), 1);
        let writable = Window::map(zero, PAGE_SIZE, Protection::READ_WRITE).needed("map")?;
        let (page, data) = (readable.start().as_u64(), writable.start().as_u64());
        let after = page + 2 * PAGE_SIZE as u64;
        let cases: [Offence; 9] = [
            ("a read beside a mapping", wild::touch, after, Denial::NoMapping),
            ("a write beside a mapping", write, after, Denial::NoMapping),
            ("a call of what is not there", wild::execute, after, Denial::NoMapping),
            ("a read of a null pointer", wild::touch, 0, Denial::NoMapping),
            ("a write to a null pointer", write, 8, Denial::NoMapping),
            ("a write to a page that is not there yet", write, page, Denial::Protection(Access::Write)),
            ("a write to a page that is there", read_write, page, Denial::Protection(Access::Write)),
            (
                "a call of a page that is not there yet",
                wild::execute,
                data,
                Denial::Protection(Access::Execute),
            ),
            ("a call of a page that is there", write_execute, data, Denial::Protection(Access::Execute)),
        ];
        for (what, act, at, expected) in cases {
            let mut crew = Crew::default();
            crew.add("offender", move || act(at))?;
            for end in crew.join().await? {
                let right =
                    matches!(end, EndReason::Denied { address, why, .. } if why == expected && address == at);
                ensure!(right, "{what} at {at:#x}: the thread was {end}");
            }
            bystander.still_works().await?;
        }
        let mut crew = Crew::default();
        crew.add("reader", move || assert_eq!(wild::read(page), 0, "a page that is there was changed"))?;
        crew.finish().await?;
        bystander.stop().await
    })
    .await
}

fn write(address: u64) {
    wild::write(address, 1);
}

fn read_write(address: u64) {
    wild::touch(address);
    wild::write(address, 1);
}

fn write_execute(address: u64) {
    wild::write(address, 0xc3);
    wild::execute(address);
}

/// Exceptions of kernel threads other than page faults.
pub(crate) async fn exceptions_end_the_thread() -> Outcome {
    usage::stays_equal(3, |_| async {
        let bystander = Bystander::start()?;
        let cases: [(fn(), u8); 3] =
            [(wild::divide_by_zero, 0), (wild::invalid_opcode, 6), (wild::touch_non_canonical, 13)];
        for (act, vector) in cases {
            let mut crew = Crew::default();
            crew.add("offender", act)?;
            for end in crew.join().await? {
                let right = matches!(end, EndReason::Raised(raised) if raised.exception.vector == vector);
                ensure!(right, "exception {vector}: the thread was {end}");
            }
            bystander.still_works().await?;
        }
        bystander.stop().await
    })
    .await
}

/// What ends a program of ring 3.
enum End {
    Denied(u64, Denial),
    Raised(u8),
}

/// What a program in ring 3 may not do, each as its machine code.
pub(crate) async fn denied_accesses_end_a_program() -> Outcome {
    const KERNEL: u64 = 0xffff_ffff_8000_0000;
    const WINDOW: u64 = 0xffff_c000_0000_0000;
    const BETWEEN: u64 = 0x0000_8000_0000_0000;
    let cases = || {
        [
            ("read of nothing", load(0x1000), End::Denied(0x1000, Denial::NoMapping)),
            ("read of the kernel", load(KERNEL), End::Denied(KERNEL, Denial::UserTouchesKernel)),
            ("read of the window", load(WINDOW), End::Denied(WINDOW, Denial::UserTouchesKernel)),
            ("read between the halves", load(BETWEEN), End::Raised(13)),
            ("write to its code", store(CODE), End::Denied(CODE, Denial::Protection(Access::Write))),
            ("write to the kernel", store(KERNEL), End::Denied(KERNEL, Denial::UserTouchesKernel)),
            ("jump into its data", jump(DATA), End::Denied(DATA, Denial::Protection(Access::Execute))),
            ("jump into the kernel", jump(KERNEL), End::Denied(KERNEL, Denial::UserTouchesKernel)),
            ("jump between the halves", jump(BETWEEN), End::Raised(13)),
            ("hlt", [0xf4].into(), End::Raised(13)),
            ("cli", [0xfa].into(), End::Raised(13)),
            ("in al, dx", [0xec].into(), End::Raised(13)),
            ("mov rax, cr3", [0x0f, 0x20, 0xd8].into(), End::Raised(13)),
            ("the kernel threads' call", [0xcd, 0x48].into(), End::Raised(13)),
            ("int 14, a false page fault", [0xcd, 14].into(), End::Raised(13)),
            ("int 2, a false interrupt", [0xcd, 2].into(), End::Raised(13)),
            ("ud2", [0x0f, 0x0b].into(), End::Raised(6)),
            ("int3", [0xcc].into(), End::Raised(3)),
            ("division by zero", [0x31, 0xc9, 0xf7, 0xf1].into(), End::Raised(0)),
            ("a single step", [0x9c, 0x80, 0x4c, 0x24, 1, 1, 0x9d, 0x90, 0x90].into(), End::Raised(1)),
        ]
    };
    usage::stays_equal(2, |_| async {
        let bystander = Bystander::start()?;
        for (what, code, expected) in cases() {
            let mut crew = Crew::default();
            crew.adopt(ring3::start(code)?);
            for end in crew.join().await? {
                let right = match (&expected, end) {
                    (End::Denied(at, reason), EndReason::Denied { address, why, .. }) => {
                        address == *at && why == *reason
                    }
                    (End::Raised(vector), EndReason::Raised(raised)) => raised.exception.vector == *vector,
                    _ => false,
                };
                ensure!(right, "{what}: the program was {end}");
            }
            bystander.still_works().await?;
        }
        bystander.stop().await
    })
    .await
}

/// `mov rax, address`, then `tail`.
fn with_address(address: u64, tail: &[u8]) -> Vec<u8> {
    [&[0x48, 0xb8][..], &address.to_le_bytes(), tail].concat()
}

/// `mov rax, [rax]`.
fn load(address: u64) -> Vec<u8> {
    with_address(address, &[0x48, 0x8b, 0x00])
}

/// `mov [rax], rax`.
fn store(address: u64) -> Vec<u8> {
    with_address(address, &[0x48, 0x89, 0x00])
}

/// `jmp rax`.
fn jump(address: u64) -> Vec<u8> {
    with_address(address, &[0xff, 0xe0])
}
