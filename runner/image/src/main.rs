//! Packs a kernel into a bootable disk image.
fn main() {}
