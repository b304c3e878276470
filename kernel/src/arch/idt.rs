//! Which vector goes where.
#![allow(unsafe_code, reason = "installs trap handlers")]

use conquer_once::spin::OnceCell;
use x86_64::{
    PrivilegeLevel, VirtAddr,
    registers::{
        model_specific::{LStar, SFMask, Star},
        rflags::RFlags,
        segmentation::SegmentSelector,
    },
    structures::idt::InterruptDescriptorTable,
};

use super::{
    gdt::{KERNEL_CODE, KERNEL_DATA, Stack, USER_CODE, USER_DATA},
    stubs,
};

/// The first vector of the I/O APIC's inputs: the ISA interrupts.
pub(crate) const FIRST_ISA: u8 = 0x20;
/// The first vector that devices with message-signalled interrupts get.
pub(crate) const FIRST_MSI: u8 = 0x30;
/// The first vector after those of devices; [`TIMER`] and the others follow.
pub(crate) const DEVICES_END: u8 = 0x40;
/// The local APIC's one-shot timer.
pub(crate) const TIMER: u8 = 0x40;
/// Another CPU asks this one to leave idle.
pub(crate) const KICK: u8 = 0x41;
/// The local APIC's own errors.
pub(crate) const APIC_ERROR: u8 = 0x42;
/// A kernel thread calls the kernel: see [`crate::thread::call`].
pub(crate) const THREAD_CALL: u8 = 0x48;
/// The local APIC's spurious interrupt.
pub(crate) const SPURIOUS: u8 = 0xff;

static IDT: OnceCell<InterruptDescriptorTable> = OnceCell::uninit();

/// Installs the stubs of `$set`'s vectors, each with an entry of its own.
macro_rules! install {
    ($idt:ident, $($vector:literal)*) => {
        $(
            // SAFETY: the stub is made for this vector, and the stack index is one of ours.
            unsafe {
                $idt[$vector]
                    .set_handler_addr(entry(stubs::plain::<$vector>))
                    .set_stack_index(Stack::Interrupt as u16);
            }
        )*
    };
}

/// Installs the exceptions by field: those with an error code cannot be indexed.
macro_rules! install_exceptions {
    ($idt:ident, $($field:ident: $stub:expr, $stack:ident;)*) => {
        $(
            // SAFETY: the stub knows whether this vector has an error code; the stack index is one of ours.
            unsafe { $idt.$field.set_handler_addr(entry($stub)).set_stack_index(Stack::$stack as u16); }
        )*
    };
}

fn entry(stub: unsafe extern "C" fn()) -> VirtAddr {
    VirtAddr::from_ptr(stub as *const ())
}

/// Loads the table and sets up `syscall`. Our segments are loaded already: entries store the selector.
pub(super) fn init() {
    let idt = IDT.get_or_init(|| {
        let mut idt = InterruptDescriptorTable::new();
        install_exceptions! { idt,
            divide_error: stubs::plain::<0>, Exception;
            debug: stubs::debug, Debug;
            non_maskable_interrupt: stubs::nmi, Nmi;
            overflow: stubs::plain::<4>, Exception;
            bound_range_exceeded: stubs::plain::<5>, Exception;
            invalid_opcode: stubs::plain::<6>, Exception;
            device_not_available: stubs::plain::<7>, Exception;
            double_fault: stubs::double_fault, DoubleFault;
            invalid_tss: stubs::with_error::<10>, Exception;
            segment_not_present: stubs::with_error::<11>, Exception;
            stack_segment_fault: stubs::with_error::<12>, Exception;
            general_protection_fault: stubs::with_error::<13>, Exception;
            page_fault: stubs::page_fault, PageFault;
            x87_floating_point: stubs::plain::<16>, Exception;
            alignment_check: stubs::with_error::<17>, Exception;
            machine_check: stubs::machine_check, MachineCheck;
            simd_floating_point: stubs::plain::<19>, Exception;
            virtualization: stubs::plain::<20>, Exception;
            cp_protection_exception: stubs::with_error::<21>, Exception;
        }
        // Programs raise breakpoints themselves.
        // SAFETY: `plain::<3>` serves traps from ring 3 as from ring 0.
        unsafe {
            idt.breakpoint
                .set_handler_addr(entry(stubs::plain::<3>))
                .set_stack_index(Stack::Exception as u16)
                .set_privilege_level(PrivilegeLevel::Ring3);
        }
        install! { idt,
            0x20 0x21 0x22 0x23 0x24 0x25 0x26 0x27 0x28 0x29 0x2a 0x2b 0x2c 0x2d 0x2e 0x2f
            0x30 0x31 0x32 0x33 0x34 0x35 0x36 0x37 0x38 0x39 0x3a 0x3b 0x3c 0x3d 0x3e 0x3f
            0x40 0x41 0x42 0x48 0xff
        }
        idt
    });
    idt.load();
    let selector = |value: u64| SegmentSelector(value as u16);
    Star::write(selector(USER_CODE), selector(USER_DATA), selector(KERNEL_CODE), selector(KERNEL_DATA))
        .expect("the segments stand in the order that sysret wants");
    LStar::write(entry(stubs::syscall));
    // Interrupts stay off until the registers are saved; the other flags are the user's to misuse.
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK,
    );
}
