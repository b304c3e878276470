//! Makes the book.
use std::process::ExitCode;

use anyhow::Result;
use faultline_book::{build, root};

fn main() -> Result<ExitCode> {
    let to = root().join("target/book");
    let complaints = build(&root().join("docs"), &to)?;
    for complaint in &complaints {
        eprintln!("faultline-book: {complaint}");
    }
    println!("{}", to.canonicalize()?.join("index.html").display());
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
