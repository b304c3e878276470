//! Segments and trap stacks of a CPU.
#![allow(unsafe_code, reason = "loads segment registers")]

use core::{cell::UnsafeCell, mem::offset_of};

use conquer_once::spin::OnceCell;
use x86_64::{
    PrivilegeLevel, VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, FS, GS, SS, Segment},
        tables::load_tss,
    },
    registers::segmentation::SegmentSelector,
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable},
        tss::TaskStateSegment,
    },
};

use super::cpu::{Cpu, TRAP_STACK_SIZE, TrapStacks};

/// Selectors, in the order that `sysret` wants: kernel code, kernel data, user data, user code.
pub(crate) const KERNEL_CODE: u64 = 0x08;
/// The kernel's stack segment.
pub(crate) const KERNEL_DATA: u64 = 0x10;
/// The data and stack segment of ring 3.
pub(crate) const USER_DATA: u64 = 0x18 | 3;
/// The code segment of ring 3.
pub(crate) const USER_CODE: u64 = 0x20 | 3;

/// Which trap enters on which stack: indexes into the task-state segment's table.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum Stack {
    /// Exceptions without a stack of their own.
    Exception,
    /// Page faults, so that a fault inside another handler keeps the frame that the report needs. While one is answered,
    /// the next enters on the stack of exceptions, which is below and in use for nothing then: so a fault of the handler's
    /// own, which is the kernel's bug, leaves the first one's frame for the report.
    PageFault,
    /// Device interrupts, the timer, and calls from kernel threads.
    Interrupt,
    /// Non-maskable interrupts.
    Nmi,
    /// Double faults.
    DoubleFault,
    /// Machine checks.
    MachineCheck,
    /// Debug exceptions.
    Debug,
}

/// A CPU's own segments: its trap stacks stand in them.
#[repr(C)]
pub(super) struct Segments {
    tss: Tss,
    gdt: OnceCell<(GlobalDescriptorTable, SegmentSelector)>,
}

/// Where the processor finds the trap stacks, at every trap.
#[repr(transparent)]
struct Tss(UnsafeCell<TaskStateSegment>);

// SAFETY: written before its CPU uses it, and then by that CPU alone, with interrupts off: see `page_fault`'s stub.
unsafe impl Sync for Tss {}

const _: () = assert!(Stack::PageFault as usize == Stack::Exception as usize + 1, "stacks lie side by side");

impl Segments {
    /// Where page faults enter, as an offset within: the stubs lower it by [`TRAP_STACK_SIZE`] while they answer one.
    pub(super) const PAGE_FAULT_STACK: usize = offset_of!(Segments, tss)
        + offset_of!(TaskStateSegment, interrupt_stack_table)
        + Stack::PageFault as usize * size_of::<VirtAddr>();

    pub(super) const fn new() -> Self {
        Self { tss: Tss(UnsafeCell::new(TaskStateSegment::new())), gdt: OnceCell::uninit() }
    }

    /// Makes the tables. Once, before [`load`](Self::load).
    pub(super) fn prepare(&'static self, stacks: &'static TrapStacks, cpu: &'static Cpu) {
        let tss = self.tss.0.get();
        // SAFETY: nobody uses it yet. The table is not aligned, so it is set as a whole.
        unsafe { (*tss).interrupt_stack_table = stacks.each_ref().map(|stack| stack.prepare(cpu)) };
        self.gdt.init_once(|| {
            let mut gdt = GlobalDescriptorTable::new();
            gdt.append(Descriptor::kernel_code_segment());
            gdt.append(Descriptor::kernel_data_segment());
            gdt.append(Descriptor::user_data_segment());
            gdt.append(Descriptor::user_code_segment());
            // SAFETY: it stays where it is for good, as this does.
            let tss = gdt.append(unsafe { Descriptor::tss_segment_unchecked(tss) });
            (gdt, tss)
        });
    }

    /// The top of the stack on which a page fault is being answered, if one is. On the CPU whose segments these are.
    pub(super) fn page_fault_under_way(&self) -> Option<u64> {
        // SAFETY: only this CPU changes it.
        let stacks = unsafe { (*self.tss.0.get()).interrupt_stack_table };
        let [exceptions, page_faults] = [Stack::Exception, Stack::PageFault].map(|it| stacks[it as usize]);
        (page_faults == exceptions).then(|| page_faults.as_u64() + TRAP_STACK_SIZE as u64)
    }

    /// Loads the segments on the executing CPU, which they were made for.
    pub(super) fn load(&'static self) {
        let (gdt, tss) = self.gdt.get().expect("segments are prepared before they are loaded");
        gdt.load();
        let kernel_data = SegmentSelector(KERNEL_DATA as u16);
        // SAFETY: the selectors are those of the table that was just loaded.
        unsafe {
            CS::set_reg(SegmentSelector(KERNEL_CODE as u16));
            SS::set_reg(kernel_data);
            for null in [DS::set_reg, ES::set_reg, FS::set_reg, GS::set_reg] {
                null(SegmentSelector::new(0, PrivilegeLevel::Ring0));
            }
            load_tss(*tss);
        }
    }
}
