//! QEMU's fw_cfg device: small named files that the runner hands to the kernel.
//!
//! The device is an item selector and a byte stream. Item 0 is a signature, item 0x19 a directory of
//! named files; all numbers in it are big-endian. What the device says is checked before it is believed:
//! a machine without one reads as all ones.

use alloc::vec::Vec;

use crate::port::{FW_CFG_DATA, FW_CFG_SELECT};

const SIGNATURE: u16 = 0x00;
const DIRECTORY: u16 = 0x19;
/// Size of a file's name in the directory, its closing zero included.
const NAME_BYTES: usize = 56;
/// More entries than any QEMU has; a larger count means that this is not a directory.
const MAX_ENTRIES: u32 = 4096;
/// The largest file that is read. The runner's files are a few hundred bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// The two registers; a seam for tests.
trait Registers {
    /// Selects an item and starts at its first byte.
    fn select(&self, item: u16);
    /// The selected item's next byte; zeros after its end.
    fn next_byte(&self) -> u8;
}

#[derive(Debug)]
struct Ports;

impl Registers for Ports {
    fn select(&self, item: u16) {
        FW_CFG_SELECT.write(item);
    }
    fn next_byte(&self) -> u8 {
        FW_CFG_DATA.read()
    }
}

/// A fw_cfg device that has shown its signature.
///
/// Reading takes `&mut self`, as the device has one selector. The caller keeps it to one CPU.
#[derive(Debug)]
pub struct FwCfg {
    ports: Ports,
}

impl FwCfg {
    /// Looks for the device; `None` if this machine has none. For boot, before other CPUs run.
    pub fn detect() -> Option<Self> {
        let ports = Ports;
        is_present(&ports).then_some(Self { ports })
    }

    /// Reads the file of this name (`opt/faultline/...`) as a whole. `None` if there is no such file, if
    /// it is larger than [`MAX_FILE_BYTES`], or if there is no memory for it.
    pub fn read_file(&mut self, name: &str) -> Option<Vec<u8>> {
        read_file(&self.ports, name)
    }
}

fn is_present(device: &impl Registers) -> bool {
    device.select(SIGNATURE);
    read_array(device) == *b"QEMU"
}

fn read_file(device: &impl Registers, name: &str) -> Option<Vec<u8>> {
    let (item, size) = find(device, name)?;
    if size > MAX_FILE_BYTES {
        return None;
    }
    let mut content = Vec::new();
    content.try_reserve_exact(size).ok()?;
    device.select(item);
    content.extend((0..size).map(|_| device.next_byte()));
    Some(content)
}

/// Looks a name up in the directory: the file's item and size.
fn find(device: &impl Registers, name: &str) -> Option<(u16, usize)> {
    device.select(DIRECTORY);
    let count = u32::from_be_bytes(read_array(device));
    if count > MAX_ENTRIES {
        return None;
    }
    for _ in 0..count {
        let size = u32::from_be_bytes(read_array(device));
        let item = u16::from_be_bytes(read_array(device));
        let _reserved: [u8; 2] = read_array(device);
        let entry: [u8; NAME_BYTES] = read_array(device);
        let length = entry.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        if &entry[..length] == name.as_bytes() {
            return Some((item, size as usize));
        }
    }
    None
}

fn read_array<const N: usize>(device: &impl Registers) -> [u8; N] {
    core::array::from_fn(|_| device.next_byte())
}

#[cfg(test)]
mod tests;
