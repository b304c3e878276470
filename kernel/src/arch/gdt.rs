//! Segments and trap stacks of a CPU.
#![allow(unsafe_code, reason = "loads segment registers")]

use conquer_once::spin::OnceCell;
use x86_64::{
    PrivilegeLevel,
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

use super::cpu::{Cpu, TrapStacks};

/// Selectors, in the order that `sysret` wants: kernel code, kernel data, user data, user code.
pub const KERNEL_CODE: u64 = 0x08;
/// The kernel's stack segment.
pub const KERNEL_DATA: u64 = 0x10;
/// The data and stack segment of ring 3.
pub const USER_DATA: u64 = 0x18 | 3;
/// The code segment of ring 3.
pub const USER_CODE: u64 = 0x20 | 3;

/// Which trap enters on which stack: indexes into the task-state segment's table.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum Stack {
    /// Exceptions without a stack of their own.
    Exception,
    /// Page faults, so that a fault inside another handler keeps the frame that the report needs. One in the handler of
    /// page faults itself is the kernel's own bug; its report has that fault, and not the one before.
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
pub(super) struct Segments {
    tss: OnceCell<TaskStateSegment>,
    gdt: OnceCell<(GlobalDescriptorTable, SegmentSelector)>,
}

impl Segments {
    pub(super) const fn new() -> Self {
        Self { tss: OnceCell::uninit(), gdt: OnceCell::uninit() }
    }

    /// Makes the tables. Once, before [`load`](Self::load).
    pub(super) fn prepare(&'static self, stacks: &'static TrapStacks, cpu: &'static Cpu) {
        let tss = self.tss.get_or_init(|| {
            let mut tss = TaskStateSegment::new();
            // The table is not aligned, so it is set as a whole.
            tss.interrupt_stack_table = stacks.each_ref().map(|stack| stack.prepare(cpu));
            tss
        });
        self.gdt.init_once(|| {
            let mut gdt = GlobalDescriptorTable::new();
            gdt.append(Descriptor::kernel_code_segment());
            gdt.append(Descriptor::kernel_data_segment());
            gdt.append(Descriptor::user_data_segment());
            gdt.append(Descriptor::user_code_segment());
            let tss = gdt.append(Descriptor::tss_segment(tss));
            (gdt, tss)
        });
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
