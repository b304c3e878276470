//! The directory walk against a device made of byte strings.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use super::*;

struct Fake {
    items: Vec<(u16, Vec<u8>)>,
    selected: RefCell<Vec<u8>>,
    position: Cell<usize>,
    after_end: u8,
}

impl Registers for Fake {
    fn select(&self, item: u16) {
        let content = self.items.iter().find(|(number, _)| *number == item);
        *self.selected.borrow_mut() = content.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        self.position.set(0);
    }
    fn next_byte(&self) -> u8 {
        let position = self.position.replace(self.position.get() + 1);
        self.selected.borrow().get(position).copied().unwrap_or(self.after_end)
    }
}

fn entry(size: u32, item: u16, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(size.to_be_bytes());
    bytes.extend(item.to_be_bytes());
    bytes.extend([0xaa, 0xbb]);
    bytes.extend(name.as_bytes());
    bytes.resize(64, 0);
    bytes
}

fn device(files: &[(&str, &[u8])]) -> Fake {
    let mut directory = Vec::from((files.len() as u32).to_be_bytes());
    let mut items = Vec::from([(SIGNATURE, Vec::from(*b"QEMU"))]);
    for (number, (name, content)) in files.iter().enumerate() {
        let item = 0x120 + number as u16;
        directory.extend(entry(content.len() as u32, item, name));
        items.push((item, content.to_vec()));
    }
    items.push((DIRECTORY, directory));
    Fake { items, selected: RefCell::default(), position: Cell::new(0), after_end: 0 }
}

#[test]
fn a_file_is_found_by_its_whole_name() {
    let fake = device(&[("opt/a", b"first"), ("opt/ab", b"second"), ("opt/abc", b"")]);
    assert!(is_present(&fake));
    assert_eq!(read_file(&fake, "opt/ab").unwrap(), b"second");
    assert_eq!(read_file(&fake, "opt/a").unwrap(), b"first");
    assert_eq!(read_file(&fake, "opt/abc").unwrap(), b"");
    assert_eq!(read_file(&fake, "opt/"), None);
    assert_eq!(read_file(&fake, "opt/abcd"), None);
}

#[test]
fn a_name_may_fill_its_field() {
    let name = "n".repeat(NAME_BYTES);
    let fake = device(&[(&name, b"x")]);
    assert_eq!(read_file(&fake, &name).unwrap(), b"x");
}

#[test]
fn a_machine_without_the_device_has_none() {
    let fake =
        Fake { items: Vec::new(), selected: RefCell::default(), position: Cell::new(0), after_end: 0xff };
    assert!(!is_present(&fake));
    assert_eq!(read_file(&fake, "opt/a"), None, "a directory of 2^32 - 1 entries is not walked");
}

#[test]
fn a_huge_file_is_refused() {
    let mut fake = device(&[]);
    fake.items.retain(|(item, _)| *item != DIRECTORY);
    let mut directory = Vec::from(1u32.to_be_bytes());
    directory.extend(entry(u32::MAX, 0x120, "opt/huge"));
    fake.items.push((DIRECTORY, directory));
    assert_eq!(read_file(&fake, "opt/huge"), None);
}
