//! Where programs stand.

/// A fixed place in the lower half, where a page fault shows the address that the ELF file names.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["--no-pie", "--image-base=0x400000"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
