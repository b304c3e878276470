//! Addresses and page numbers. Each is a type of its own, so that a page of an object, a page of an
//! address space and a frame of memory are never taken for one another.

use core::fmt;
use core::ops::{Add, Sub};

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;
/// The same as a 64-bit number, for address arithmetic.
pub(crate) const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// A physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The physical address `address`, in bytes.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A canonical virtual address in bytes: bits 48..63 repeat bit 47.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// The address `address`, or `None` when it is not canonical.
    pub const fn new(address: u64) -> Option<Self> {
        if Self::truncated(address).0 == address { Some(Self(address)) } else { None }
    }

    /// The canonical address with the low 48 bits of `address`.
    pub const fn truncated(address: u64) -> Self {
        Self(((address << 16) as i64 >> 16) as u64)
    }

    /// The address as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The first byte of the page that this address lies in.
    pub const fn page_start(self) -> Self {
        Self(self.0 & !(PAGE_BYTES - 1))
    }

    /// Distance from the start of the page, 0..4096.
    pub const fn page_offset(self) -> usize {
        (self.0 & (PAGE_BYTES - 1)) as usize
    }

    /// Whether the address is the start of a page.
    pub const fn is_page_aligned(self) -> bool {
        self.page_offset() == 0
    }

    /// Whether the address lies in the upper half, the kernel's.
    pub const fn is_upper_half(self) -> bool {
        self.0 >> 63 == 1
    }

    /// The address `pages` pages further. The caller stays within one half.
    pub(crate) const fn page_add(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages * PAGE_BYTES))
    }
}

/// The number of a page within a `VmObject`, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PageIndex(u64);

impl PageIndex {
    /// Page number `index`.
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// The page number as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Offset of the page's first byte in the object.
    pub const fn byte_offset(self) -> u64 {
        self.0 * PAGE_BYTES
    }
}

impl Add<u64> for PageIndex {
    type Output = Self;
    fn add(self, pages: u64) -> Self {
        Self(self.0 + pages)
    }
}

impl Sub for PageIndex {
    type Output = u64;
    fn sub(self, other: Self) -> u64 {
        self.0 - other.0
    }
}

impl fmt::Display for PageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

macro_rules! hexadecimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    )*};
}
hexadecimal!(PhysAddr VirtAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_between_the_halves_are_refused() {
        assert!(VirtAddr::new(0x0000_7fff_ffff_ffff).is_some());
        assert!(VirtAddr::new(0x0000_8000_0000_0000).is_none());
        assert!(VirtAddr::new(0xffff_7fff_ffff_ffff).is_none());
        assert!(VirtAddr::new(0xffff_8000_0000_0000).is_some_and(VirtAddr::is_upper_half));
    }

    #[test]
    fn a_page_starts_where_its_offset_is_zero() {
        let address = VirtAddr::truncated(0x1234_5678);
        assert_eq!(address.page_start(), VirtAddr::truncated(0x1234_5000));
        assert_eq!(address.page_offset(), 0x678);
        assert!(!address.is_page_aligned());
        assert!(address.page_start().is_page_aligned());
    }
}
