//! What the Rust toolchain at hand can do, and what has to be made up for.
//!
//! Two kinds of toolchain are served: rustup's, which brings `core` for the bare target, and a distribution's,
//! which does not. The second builds `core` itself, with options that stable cargo only takes when told so.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target of everything that runs inside the machine.
pub const BARE_TARGET: &str = "x86_64-unknown-none";

/// The compiler that `cargo` uses in the workspace.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where the compiler's own files are.
    pub sysroot: PathBuf,
    /// The target triple of programs for this machine.
    pub host: String,
    /// The compiler's version, such as `1.96.0`.
    pub release: String,
}

impl Toolchain {
    /// Asks the `rustc` of `workspace` about itself.
    ///
    /// # Errors
    /// When there is no working `rustc`.
    pub fn find(workspace: &Path) -> Result<Self> {
        let about = rustc(workspace, &["-vV"])?;
        let field = |name: &str| {
            let line = about.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
                .map(str::to_owned)
                .with_context(|| format!("`rustc -vV` does not say its {name}"))
        };
        let sysroot = PathBuf::from(rustc(workspace, &["--print", "sysroot"])?.trim());
        Ok(Self { sysroot, host: field("host:")?, release: field("release:")? })
    }

    /// Is a ready-made `core` for the bare target installed?
    pub fn has_bare_core(&self) -> bool {
        self.sysroot.join("lib/rustlib").join(BARE_TARGET).join("lib").is_dir()
    }

    /// Are the sources of `core` installed?
    pub fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    }

    /// The folder of the toolchain's own binaries (`llvm-objcopy` and others).
    pub fn tools(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(&self.host).join("bin")
    }

    /// The program that strips the kernel for the boot image.
    ///
    /// # Errors
    /// When the toolchain has none.
    pub fn objcopy(&self) -> Result<PathBuf> {
        for name in ["llvm-objcopy", "rust-objcopy"] {
            let tool = self.tools().join(name);
            if tool.is_file() {
                return Ok(tool);
            }
        }
        bail!("there is no llvm-objcopy in {} (./setup.sh installs it)", self.tools().display())
    }

    /// The options that let cargo build for the bare target.
    pub fn cargo_options(&self) -> Vec<OsString> {
        let mut options = vec!["--target".into(), BARE_TARGET.into()];
        if !self.has_bare_core() {
            options.push("-Zbuild-std=core,alloc,compiler_builtins".into());
            options.push("-Zbuild-std-features=compiler-builtins-mem".into());
        }
        options
    }

    /// Must stable cargo be told to accept [`Toolchain::cargo_options`]?
    pub fn needs_bootstrap(&self) -> bool {
        !self.has_bare_core()
    }
}

fn rustc(workspace: &Path, args: &[&str]) -> Result<String> {
    let run = Command::new("rustc").args(args).current_dir(workspace).output();
    let output = run.context("rustc does not start (./setup.sh installs it)")?;
    if !output.status.success() {
        bail!("rustc fails: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("rustc answers in something else than UTF-8")
}
