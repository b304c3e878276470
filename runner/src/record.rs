//! Records of runs, and what they were made with.
//!
//! A record is a log of QEMU's: what came into the machine from outside, and at which instruction. It is of use only
//! to the same machine with the same contents, so a file beside it (`FILE.json`) keeps the options of the run, how it
//! ended, and a hash of the log and of each thing that the machine read. A replay takes the options from there, and
//! is refused where a hash differs.
//!
//! The file beside is written when the run has ended, and removed when one begins: a record that is not whole has none.
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cli::Cli;
use crate::outcome::Outcome;
use crate::outputs::folder_of;
use crate::qemu::MachineConfig;

/// How the file beside begins. Another number when its fields change.
const KIND: &str = "faultline-record-3";
/// How it begins whatever its fields are.
const ANY_KIND: &str = "faultline-record-";

/// A run that is being recorded.
#[derive(Debug)]
pub struct Recording {
    log: PathBuf,
    about: Value,
}

impl Recording {
    /// Begins a record of a machine that runs as `cli` and `config` say.
    ///
    /// # Errors
    /// When an option is no text, or a file cannot be read or removed.
    pub fn begin(log: &Path, cli: &Cli, config: &MachineConfig, qemu: &str) -> Result<Self> {
        let text = |word: &OsString| word.clone().into_string().ok();
        let words: Option<Vec<String>> = cli.words.iter().map(text).collect();
        let words = words.context("--record: an option is no text and cannot be kept")?;
        let folder = env::current_dir().context("there is no current folder")?;
        let about = json!({
            "kind": KIND, "qemu": qemu, "options": words, "folder": folder.to_string_lossy(),
            "console": config.console, "contents": contents(config)?,
        });
        refuse_to_replace(log)?;
        match fs::remove_file(beside(log)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                Err(why).context("the old record cannot be removed")
            }
            _ => Ok(Self { log: log.into(), about }),
        }
    }

    /// Keeps the record of a run that has ended so.
    ///
    /// # Errors
    /// When QEMU has written none, or a file cannot be written.
    pub fn keep(mut self, outcome: Outcome) -> Result<()> {
        self.about["outcome"] = outcome.into();
        self.about["log"] = hash(&self.log)?.into();
        let place = beside(&self.log);
        let failure = || format!("cannot write {}", place.display());
        let new = tempfile::Builder::new()
            .prefix(".record-")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(folder_of(&place));
        let mut new = new.with_context(failure)?;
        new.write_all(format!("{:#}\n", self.about).as_bytes()).with_context(failure)?;
        new.persist(&place).map(drop).with_context(failure)
    }
}

/// A record of a run that has ended.
#[derive(Debug)]
pub struct Record {
    log: PathBuf,
    about: Value,
}

impl Record {
    /// Opens a record.
    ///
    /// # Errors
    /// When `log` is none, or not whole any more.
    pub fn open(log: &Path) -> Result<Self> {
        // The run's own folder is entered later.
        let log = fs::canonicalize(log).with_context(|| format!("there is no record {}", log.display()))?;
        let about = fs::read(beside(&log)).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let Some(about) = about.filter(|about| about["kind"] == KIND) else {
            bail!(
                "{} is no record of a run that has ended: there is no {} that tells about it",
                log.display(),
                beside(&log).display()
            );
        };
        if about["log"] != hash(&log)? {
            bail!("the record {} has changed since it was made", log.display());
        }
        Ok(Self { log, about })
    }

    /// The log for QEMU.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How a replay has ended, of whose machine that is the outcome. Where the runner stopped the run that was recorded, the
    /// log ends, and so does the machine without a word of the kernel's.
    pub fn outcome(&self, replayed: Outcome) -> Outcome {
        match replayed {
            Outcome::Reset => Outcome::stopped(&self.about["outcome"]).unwrap_or(replayed),
            _ => replayed,
        }
    }

    /// Did the console take input?
    pub fn has_console(&self) -> bool {
        self.about["console"] == true
    }

    /// The options of the run that was recorded, with those of `replay` that may differ. Enters the run's folder.
    ///
    /// # Errors
    /// When the folder is gone, or the options are no longer understood.
    pub fn options(&self, replay: &Cli) -> Result<Cli> {
        let words = self.about["options"].as_array().into_iter().flatten();
        let words = std::iter::once("faultline").chain(words.filter_map(Value::as_str)).map(OsString::from);
        let folder = self.about["folder"].as_str().unwrap_or_default();
        env::set_current_dir(folder).with_context(|| format!("the folder {folder} of the run is gone"))?;
        let run = Cli::try_read(words).context("the options of the run are no longer understood")?;
        Ok(Cli {
            record: None,
            replay: Some(self.log.clone()),
            display: replay.display,
            headless: replay.headless,
            screenshot: replay.screenshot.clone(),
            timeout: replay.timeout,
            gdb: replay.gdb,
            ..run
        })
    }

    /// Is this the machine that the record was made with?
    ///
    /// # Errors
    /// Names the first thing that differs.
    pub fn check(&self, config: &MachineConfig, qemu: &str) -> Result<()> {
        let record = self.log.display();
        if self.about["qemu"] != qemu {
            bail!(
                "{record} was made by QEMU {}, and this is {qemu}",
                self.about["qemu"].as_str().unwrap_or("?")
            );
        }
        let (then, now) = (&self.about["contents"], contents(config)?);
        if then == &now {
            return Ok(());
        }
        let names = now.as_object().into_iter().flatten().map(|(name, _)| name);
        match names.into_iter().find(|name| then[name.as_str()] != now[name.as_str()]) {
            Some(name) => bail!("{record} was made with another {name}"),
            None => bail!("{record} was made with more disks"),
        }
    }
}

/// Is the file beside `log`, if there is one, a record's, which a new record may replace?
///
/// # Errors
/// When it is something else.
pub(crate) fn refuse_to_replace(log: &Path) -> Result<()> {
    let place = beside(log);
    let is_records = |text: &[u8]| {
        let about: Option<Value> = serde_json::from_slice(text).ok();
        about.is_some_and(|about| about["kind"].as_str().is_some_and(|kind| kind.starts_with(ANY_KIND)))
    };
    match fs::read(&place) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(text) if is_records(&text) => Ok(()),
        Ok(_) => {
            bail!("{0} is not of a record, and --record {1} would replace it", place.display(), log.display())
        }
        Err(why) => Err(why).with_context(|| format!("cannot read {}", place.display())),
    }
}

/// Where the description of the record `log` is.
pub(crate) fn beside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// A hash of each thing that the machine reads. A disk for swap is read only where it was written, so its size is enough.
fn contents(config: &MachineConfig) -> Result<Value> {
    let mut all = json!({ "kernel image": hash(&config.boot.image)? });
    if let Some(ovmf) = &config.ovmf {
        all["UEFI firmware"] = hash(ovmf)?.into();
    }
    for (name, content) in config.kernel_files() {
        all[format!("file `{name}` for the kernel")] = hex(&Sha256::digest(content)).into();
    }
    for disk in &config.disks {
        let path = &disk.spec.path;
        let about = if disk.name == "swap" { disk.bytes.to_string() } else { hash(path)? };
        all[format!("disk {} ({})", disk.name, path.display())] = about.into();
    }
    Ok(all)
}

fn hash(path: &Path) -> Result<String> {
    let failure = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(failure)?;
    let mut bytes = vec![0; 1 << 16];
    let mut hash = Sha256::new();
    loop {
        match io::Read::read(&mut file, &mut bytes).with_context(failure)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&bytes[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
