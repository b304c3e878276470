//! Building parts of the workspace by ordinary calls of `cargo`.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::toolchain::{BARE_TARGET, Toolchain};

/// The checkout that this runner was built from.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    toolchain: Toolchain,
}

/// How much the compiler optimises what runs inside the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Optimised within its crates, and built again in some seconds after a change.
    #[default]
    Quick,
    /// Optimised across crates: what figures are measured with.
    Release,
    /// Not optimised, with overflow checks and debug assertions; 20 to 35 times slower.
    Debug,
}

impl Profile {
    /// The name of the profile's folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }
}

/// What the ELF file of a program tells a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugInfo {
    /// Functions, files and lines: for backtraces.
    Lines,
    /// Types and variables of the workspace's crates, too. After a change of types it takes three times as long to build.
    Full,
}

/// The crates of the workspace that run inside the machine, but for the binaries' own.
const CRATES: [&str; 4] = ["executor", "mm", "drivers", "kernel"];

/// A program that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name of its binary target.
    pub name: String,
    /// The ELF file, with symbols.
    pub elf: PathBuf,
}

/// The folder under the workspace's `target/` for what is built for the bare target.
const BARE_FOLDER: &str = "kernel";

/// For the kernel and for user programs, so that both have the same `core`, built once.
/// Backtraces follow frame pointers. The kernel uses no vector registers, so `sha2` must not look for them.
const FLAGS: &[&str] = &["-Cforce-frame-pointers=yes", "--cfg=sha2_backend=\"soft\""];

impl Workspace {
    /// Finds the checkout and its toolchain.
    ///
    /// # Errors
    /// When the checkout is gone or has no working compiler.
    pub fn find() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the runner's folder is in the workspace");
        if !root.join("Cargo.toml").is_file() {
            bail!("the sources are no longer in {}", root.display());
        }
        Ok(Self { root: root.into(), toolchain: Toolchain::find(root)? })
    }

    /// Its top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its compiler.
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// A folder under the workspace's `target/`, made when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn target_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join("target").join(name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(folder)
    }

    /// Builds programs for the bare machine: one binary of `package`, or all. Progress goes to standard error.
    ///
    /// # Errors
    /// When cargo fails; it has told why by then.
    pub fn build_bare(
        &self,
        package: &str,
        bin: Option<&str>,
        profile: Profile,
        debug_info: DebugInfo,
    ) -> Result<Vec<Program>> {
        let mut command = self.cargo("build", BARE_FOLDER)?;
        command.args(["--message-format=json-render-diagnostics", "-p", package]);
        let built = self.target_folder(BARE_FOLDER)?.join(BARE_TARGET).join(profile.name());
        if built.is_dir() {
            // The first time takes a while, and cargo tells how far it is. Later only errors matter.
            command.arg("--quiet");
        }
        match bin {
            Some(bin) => command.args(["--bin", bin]),
            None => command.arg("--bins"),
        };
        // cargo calls the profile `dev` whose folder is `debug`.
        let cargo_profile = if profile == Profile::Debug { "dev" } else { profile.name() };
        command.args(["--profile", cargo_profile]);
        if debug_info == DebugInfo::Full {
            for name in CRATES.iter().copied().chain([package].into_iter().filter(|it| !CRATES.contains(it)))
            {
                command.arg("--config").arg(format!("profile.{cargo_profile}.package.{name}.debug='full'"));
            }
        }
        command.args(self.toolchain.cargo_options());
        if self.toolchain.needs_bootstrap() {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
        // The kernel's benchmarks tell what they measure.
        command.env("FAULTLINE_PROFILE", profile.name());
        let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
        let output = output.context("cargo does not start")?;
        if !output.status.success() {
            bail!("`cargo build -p {package}` failed");
        }
        Ok(programs(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Builds all user programs.
    ///
    /// # Errors
    /// When cargo fails; it has told why by then.
    pub fn build_user_programs(&self, profile: Profile) -> Result<Vec<Program>> {
        self.build_bare("faultline-user", None, profile, DebugInfo::Lines)
    }

    /// A call of cargo with a target folder of its own, untouched by the caller's environment.
    pub(crate) fn cargo(&self, what: &str, folder: &str) -> Result<Command> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command.current_dir(&self.root).arg(what).arg("--target-dir").arg(self.target_folder(folder)?);
        for name in [
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_BOOTSTRAP",
        ] {
            command.env_remove(name);
        }
        Ok(command)
    }
}

/// The binaries that cargo's messages name.
fn programs(messages: &str) -> Vec<Program> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let made = messages.filter(|message| message["reason"] == "compiler-artifact");
    let program = |message: Value| {
        let elf = PathBuf::from(message["executable"].as_str()?);
        Some(Program { name: message["target"]["name"].as_str()?.to_owned(), elf })
    };
    made.filter_map(program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_found_in_what_cargo_tells() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":null}
not a message
{"reason":"compiler-artifact","target":{"name":"faultline-kernel"},"executable":"/t/release/faultline-kernel"}
{"reason":"build-finished","success":true}"#;
        let kernel = Program { name: "faultline-kernel".into(), elf: "/t/release/faultline-kernel".into() };
        assert_eq!(programs(messages), [kernel]);
    }
}
