//! The prototype kernels of `examples/`: each file of its `src/bin` is one.
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The package that they are binaries of.
pub const PACKAGE: &str = "faultline-examples";

const FOLDER: &str = "examples/src/bin";
/// How the comment begins in which an example says what its machine needs.
const QEMU: &str = "// qemu:";

/// A prototype kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The name of its binary.
    pub name: String,
    /// What QEMU is given for it.
    pub qemu_args: Vec<String>,
}

impl Example {
    /// Finds an example in the workspace at `root`.
    ///
    /// # Errors
    /// When there is none of this name: says which there are.
    pub fn find(root: &Path, name: &str) -> Result<Self> {
        let names = names(&root.join(FOLDER))?;
        if !names.iter().any(|known| known == name) {
            bail!("there is no example `{name}`; there are {}", names.join(", "));
        }
        let file = root.join(FOLDER).join(name).with_extension("rs");
        let source = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = source.lines().filter_map(|line| line.strip_prefix(QEMU));
        let qemu_args = lines.flat_map(str::split_whitespace).map(str::to_owned).collect();
        Ok(Self { name: name.to_owned(), qemu_args })
    }
}

/// The names of all examples, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("one.rs"), "//! One.\n// qemu: -m 64M\n// qemu: -device a\nfn f() {}\n")
            .unwrap();
        fs::write(folder.join("another.rs"), "//! Two.\n").unwrap();
        fs::write(folder.join("notes.txt"), "").unwrap();
        root
    }

    #[test]
    fn an_example_says_what_its_machine_needs() {
        let root = root();
        let one = Example::find(root.path(), "one").unwrap();
        assert_eq!(one.qemu_args, ["-m", "64M", "-device", "a"]);
        assert!(Example::find(root.path(), "another").unwrap().qemu_args.is_empty());
    }

    #[test]
    fn an_unknown_name_is_told_those_that_there_are() {
        let root = root();
        for name in ["two", "", "../bin/one", "notes", "one.rs"] {
            let why = Example::find(root.path(), name).unwrap_err().to_string();
            assert_eq!(why, format!("there is no example `{name}`; there are another, one"));
        }
    }
}
