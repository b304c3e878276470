//! The host program behind `cargo run`.
fn main() {}
