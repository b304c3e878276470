//! Makes a book of the pages in `docs/`, and checks what they say of the sources.
//!
//! `cargo run -p faultline-book` writes it to `target/book`.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use mdbook_driver::MDBook;
use tracing::field::{Field, Visit};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The top of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Writes the book of the pages in `docs` to `to`. Returns what there is to complain about.
///
/// # Errors
/// When it cannot be made.
pub fn build(docs: &Path, to: &Path) -> Result<Vec<String>> {
    let complaints = Arc::new(Mutex::new(Vec::new()));
    with_default(Complaints(complaints.clone()), || {
        let mut book = MDBook::load(docs).with_context(|| format!("cannot read {}", docs.display()))?;
        book.config.build.build_dir = to.to_owned();
        book.build().context("the book cannot be written")
    })?;
    let mut complaints = std::mem::take(&mut *complaints.lock().unwrap_or_else(PoisonError::into_inner));
    complaints.extend(check_pages(docs, &root())?);
    Ok(complaints)
}

/// Pages that the book leaves out, links that lead nowhere, and files that are named and are not there; in README.md, too.
fn check_pages(docs: &Path, root: &Path) -> Result<Vec<String>> {
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).context("the book has no SUMMARY.md")?;
    let mut complaints = Vec::new();
    for entry in fs::read_dir(docs)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a name of text")?;
        if !name.ends_with(".md") {
            continue;
        }
        if name != "SUMMARY.md" && !summary.contains(&format!("]({name})")) {
            complaints.push(format!("{name} is not in SUMMARY.md"));
        }
        complaints.extend(check_page(&path, root)?);
    }
    complaints.extend(check_page(&root.join("README.md"), root)?);
    complaints.sort();
    Ok(complaints)
}

/// The links and the files of one page.
fn check_page(page: &Path, root: &Path) -> Result<Vec<String>> {
    let (folder, name) = page.parent().zip(page.file_name()).context("a page in a folder")?;
    let name = name.display();
    let mut complaints = Vec::new();
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    for (line, text) in (1..).zip(text.lines()) {
        let links = links(text).filter(|link| !folder.join(link).is_file());
        complaints.extend(links.map(|link| format!("{name}:{line}: there is no page {link}")));
        let files = sources(text).filter(|file| !root.join(file).exists());
        complaints.extend(files.map(|file| format!("{name}:{line}: there is no file {file}")));
    }
    Ok(complaints)
}

/// The pages of the book that a line links to.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let pages = targets.map(|target| target.split_once('#').map_or(target, |(page, _)| page));
    pages.filter(|page| !page.is_empty() && !page.contains("://"))
}

/// The folders of the workspace whose files pages name.
const FOLDERS: [&str; 10] =
    ["executor/", "mm/", "drivers/", "kernel/", "user/", "runner/", "tests/", "examples/", "docs/", "tools/"];

/// The files that a line names in code, but not those with a place for a name, or with a part left out.
fn sources(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split('`').skip(1).step_by(2);
    code.filter(|code| FOLDERS.iter().any(|folder| code.starts_with(folder))).filter(|code| {
        !code.contains(|c: char| c.is_whitespace() || c.is_ascii_uppercase() || "*{<".contains(c))
    })
}

/// Keeps warnings and errors.
struct Complaints(Arc<Mutex<Vec<String>>>);

impl Subscriber for Complaints {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(event.metadata().target().to_owned());
        event.record(&mut text);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The fields of an event.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!(": {value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_builds_without_warnings_and_names_files_that_are_there() {
        let to = tempfile::tempdir().unwrap();
        let complaints = build(&root().join("docs"), to.path()).unwrap();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        let page = fs::read_to_string(to.path().join("page-fault.html")).unwrap();
        assert!(page.contains("<h1"), "{page}");
    }

    #[test]
    fn what_is_wrong_with_a_page_is_said() {
        let docs = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(docs.path().join(name), text).unwrap();
        write("book.toml", "[book]\ntitle = \"x\"\nsrc = \".\"\n");
        write("SUMMARY.md", "# Book\n\n- [One](one.md)\n");
        write(
            "one.md",
            "# One\n\n[two](two.md#part) [gone](gone.md) `mm/src/lib.rs` `mm/src/none.rs` `mm/src/NAME.rs`\n",
        );
        write("two.md", "# Two\n");
        let to = tempfile::tempdir().unwrap();
        assert_eq!(
            build(docs.path(), to.path()).unwrap(),
            [
                "one.md:3: there is no file mm/src/none.rs",
                "one.md:3: there is no page gone.md",
                "two.md is not in SUMMARY.md",
            ]
        );
    }

    #[test]
    fn a_warning_of_the_library_is_a_complaint() {
        let complaints = Arc::new(Mutex::new(Vec::new()));
        with_default(Complaints(complaints.clone()), || {
            tracing::warn!("page {} is odd", 1);
            tracing::info!("all is well");
        });
        let complaints = complaints.lock().unwrap();
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].ends_with(": page 1 is odd"), "{complaints:?}");
    }
}
