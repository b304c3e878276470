//! The prototype kernels of `examples/`: each file of its `src/bin` is one.
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::cli::memory;

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
    /// The memory that it asks for, in MiB.
    pub memory_mib: Option<u32>,
    /// The number of processors that it asks for.
    pub cpus: Option<u32>,
    /// What else QEMU is given for it.
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
        let mut example = Self { name: name.to_owned(), memory_mib: None, cpus: None, qemu_args: Vec::new() };
        let lines = source.lines().filter_map(|line| line.strip_prefix(QEMU));
        example
            .read(lines.flat_map(str::split_whitespace))
            .with_context(|| format!("the example `{name}`"))?;
        Ok(example)
    }

    /// What the runner has options of its own for is told apart: those of the user go before it.
    fn read<'a>(&mut self, mut words: impl Iterator<Item = &'a str>) -> Result<()> {
        while let Some(word) = words.next() {
            match word {
                "-m" => {
                    let memory = memory(words.next().unwrap_or_default());
                    self.memory_mib = Some(memory.map_err(|why| anyhow!("-m: {why}"))?);
                }
                "-smp" => {
                    let cpus = words.next().and_then(|cpus| cpus.parse().ok()).filter(|cpus| *cpus > 0);
                    self.cpus = Some(cpus.context("-smp: it is followed by a number of processors")?);
                }
                word => self.qemu_args.push(word.to_owned()),
            }
        }
        Ok(())
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
    use crate::cli::Cli;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("one.rs"), "//! One.\n// qemu: -m 64M -smp 2\n// qemu: -device a\nfn f() {}\n")
            .unwrap();
        fs::write(folder.join("another.rs"), "//! Two.\n").unwrap();
        fs::write(folder.join("notes.txt"), "").unwrap();
        root
    }

    #[test]
    fn an_example_says_what_its_machine_needs() {
        let root = root();
        let one = Example::find(root.path(), "one").unwrap();
        assert_eq!(one.qemu_args, ["-device", "a"]);
        assert_eq!((one.memory_mib, one.cpus), (Some(64), Some(2)));
        let another = Example::find(root.path(), "another").unwrap();
        assert_eq!((another.memory_mib, another.cpus, another.qemu_args.len()), (None, None, 0));
    }

    #[test]
    fn what_the_user_says_goes_before_what_an_example_asks_for() {
        let root = root();
        let [one, another] = ["one", "another"].map(|name| Example::find(root.path(), name).unwrap());
        let machine = |line: &str, example| {
            let words = std::iter::once("faultline").chain(line.split_whitespace()).map(Into::into);
            let cli = Cli::try_read(words).unwrap();
            (cli.memory_mib(Some(example)), cli.cpus(Some(example)))
        };
        assert_eq!(machine("--example one", &one), (64, 2));
        assert_eq!(machine("--example one --memory 1G", &one), (1024, 2));
        assert_eq!(machine("--example one --memory 256M --smp 4", &one), (256, 4));
        assert_eq!(machine("--example another", &another), (256, 4));
    }

    #[test]
    fn what_an_example_asks_for_must_make_sense() {
        let root = root();
        for (line, part) in [("-m lots", "-m: "), ("-m", "-m: "), ("-smp", "-smp: "), ("-smp 0", "-smp: ")] {
            fs::write(root.path().join(FOLDER).join("wrong.rs"), format!("// qemu: {line}\n")).unwrap();
            let why = format!("{:#}", Example::find(root.path(), "wrong").unwrap_err());
            assert!(why.starts_with("the example `wrong`: ") && why.contains(part), "{line}: {why}");
        }
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
