//! The file of a trace, which is whole JSON whenever somebody looks: also if this process is killed.
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chrome::Tracks;
use super::{Record, Sink};
use crate::tell;

/// Bytes of events that are written at a time.
const BATCH: usize = 1 << 16;
/// Events wait no longer than this for others.
const PATIENCE: Duration = Duration::from_millis(500);

/// Writes events to a file in the format of Chrome's traces.
pub struct TraceFile {
    /// Locked: two machines would write over each other.
    file: File,
    tracks: Tracks,
    /// Where the next event goes; what is behind it closes the file's brackets.
    end: u64,
    /// Events that are not written yet.
    batch: String,
    lost: u64,
    written: Instant,
}

/// The file that a trace is to be in: nobody else can have it, and what is in it stays until the trace begins.
/// Dropped before that, it leaves nothing behind; where two claim a new file at the same moment, or the path is a
/// link to no file, an empty file may stay.
pub struct Claim {
    file: Option<File>,
    path: PathBuf,
    was_there: bool,
}

/// How often a file is opened that somebody removes at the same moment.
const TRIES: usize = 100;

impl Claim {
    /// Claims a file, which need not be there.
    ///
    /// # Errors
    /// When it cannot be written, or another process has it as its trace.
    pub fn new(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let (file, was_there) = open(path)?;
            if let Some(claim) = Self::of(file, path, was_there)? {
                return Ok(claim);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another file is there each time that it is opened"))
    }

    /// Claims a file that was opened; `None` if whoever had it until now has removed it meanwhile.
    fn of(file: File, path: &Path, was_there: bool) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) if !leads_to(path, &file)? => Ok(None),
            Ok(()) => Ok(Some(Self { file: Some(file), path: path.into(), was_there })),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "in use by another process"))
            }
            Err(TryLockError::Error(why)) => Err(why),
        }
    }

    /// Empties the file, and begins the trace.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(mut self) -> io::Result<TraceFile> {
        let file = self.file.take().expect("a claim begins once");
        if !leads_to(&self.path, &file)? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was taken away meanwhile"));
        }
        file.set_len(0)?;
        TraceFile::begin(file)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| !self.was_there) else { return };
        // What is there now may be another's. If it cannot be removed, an empty file stays.
        if leads_to(&self.path, file).is_ok_and(|is_ours| is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file, and tells whether it was there before.
fn open(path: &Path) -> io::Result<(File, bool)> {
    match File::options().write(true).create_new(true).open(path) {
        Ok(file) => Ok((file, false)),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            // Also a link that leads to no file yet, so it is made where there is none.
            let file = File::options().write(true).create(true).truncate(false).open(path)?;
            Ok((file, true))
        }
        Err(why) => Err(why),
    }
}

/// Whether the path is that of this file, now.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let here = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (here.dev(), here.ino())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

impl TraceFile {
    fn begin(file: File) -> io::Result<Self> {
        let mut made = Self {
            file,
            tracks: Tracks::default(),
            end: 0,
            batch: String::new(),
            lost: 0,
            written: Instant::now(),
        };
        made.batch.push_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
        // So no event has to know whether it is the first.
        made.batch.push_str(
            &json!({ "ph": "M", "name": "process_name", "pid": 0, "args": { "name": "Faultline" } })
                .to_string(),
        );
        made.write()?;
        Ok(made)
    }

    /// The events that wait, and what closes the brackets, in one piece. Where there is no room for the events, the
    /// brackets are closed without them.
    fn write(&mut self) -> io::Result<()> {
        let events = self.batch.len();
        let brackets = format!("\n],\"otherData\":{{\"lost records\":{}}}}}\n", self.lost);
        self.batch.push_str(&brackets);
        if let Err(why) = self.file.write_all_at(self.batch.as_bytes(), self.end) {
            self.file
                .set_len(self.end)
                .and_then(|()| self.file.write_all_at(brackets.as_bytes(), self.end))?;
            return Err(why);
        }
        self.end += events as u64;
        self.batch.clear();
        self.written = Instant::now();
        Ok(())
    }
}

impl Sink for TraceFile {
    fn take(&mut self, records: &[Record], lost: u64) -> io::Result<()> {
        let Self { tracks, batch, .. } = self;
        let mut add = |event: Value| {
            batch.push_str(",\n");
            batch.push_str(&event.to_string());
        };
        if lost > 0 {
            tracks.lose(lost, &mut add);
        }
        records.iter().for_each(|record| tracks.follow(record, &mut add));
        self.lost += lost;
        let may_wait = self.batch.len() < BATCH && lost == 0 && self.written.elapsed() < PATIENCE;
        if may_wait { Ok(()) } else { self.write() }
    }

    fn end(&mut self) -> io::Result<()> {
        let Self { tracks, batch, .. } = self;
        tracks.end(&mut |event: Value| {
            batch.push_str(",\n");
            batch.push_str(&event.to_string());
        });
        self.write()?;
        if self.lost > 0 {
            tell(format_args!(
                "{} records of the trace were lost: the machine was faster than the host",
                self.lost
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Kind;

    fn at(time: u64, kind: Kind, first: u64) -> Record {
        Record { number: time, time, kind, cpu: 0, detail: 0, memory: 1, words: [first, 0, 0, 0, 0] }
    }

    #[test]
    fn the_file_is_whole_json_at_every_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let mut file = Claim::new(&path).unwrap().begin().unwrap();
        let read = || -> Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
        assert_eq!(read()["traceEvents"].as_array().unwrap().len(), 1);
        let mut events = 1;
        for round in 0..2000 {
            let [on, off] = [(0, Kind::Resume), (7, Kind::Leave)].map(|(at, kind)| (round * 10 + at, kind));
            file.take(&[at(on.0, on.1, 3), at(off.0, off.1, 3)], 0).unwrap();
            if round % 100 == 0 {
                events = events.max(read()["traceEvents"].as_array().unwrap().len());
            }
        }
        assert!(events > 1000, "it is written on the way");
        file.take(&[], 5).unwrap();
        assert_eq!(read()["otherData"]["lost records"], 5);
        file.end().unwrap();
        assert!(read()["traceEvents"].as_array().unwrap().len() > 4000);
    }

    #[test]
    fn a_file_that_another_writes_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let claim = Claim::new(&path).unwrap();
        assert_eq!(Claim::new(&path).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
        let file = claim.begin().unwrap();
        let before = std::fs::read(&path).unwrap();
        assert_eq!(Claim::new(&path).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        drop(file);
        assert!(Claim::new(&path).is_ok());
    }

    #[test]
    fn a_trace_that_never_begins_leaves_an_older_one_and_no_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.json"), folder.path().join("new.json"));
        std::fs::write(&old, "an older trace").unwrap();
        [&old, &new].into_iter().for_each(|path| drop(Claim::new(path).unwrap()));
        assert_eq!(std::fs::read(&old).unwrap(), b"an older trace");
        assert!(!new.exists());
        drop(Claim::new(&old).unwrap().begin().unwrap());
        assert!(std::fs::read(&old).unwrap().starts_with(b"{"), "it is a new one");
    }

    #[test]
    fn a_file_that_its_last_owner_removes_is_not_claimed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let first = Claim::new(&path).unwrap();
        let (opened, was_there) = open(&path).unwrap();
        drop(first);
        assert!(Claim::of(opened, &path, was_there).unwrap().is_none(), "nobody would find the trace");
        drop(Claim::new(&path).unwrap().begin().unwrap());
        assert!(path.exists());
    }

    #[test]
    fn a_trace_does_not_begin_in_a_file_that_was_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let claim = Claim::new(&path).unwrap();
        fs::rename(&path, folder.path().join("b.json")).unwrap();
        assert_eq!(claim.begin().err().unwrap().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error() {
        assert!(Claim::new(Path::new("/there/is/none.json")).is_err());
    }
}
