//! A client of QMP, QEMU's own control: calls, their answers, and the events between them.
//!
//! A thread of its own reads, so that an event is told while nobody calls. It ends with the connection, which ends with
//! QEMU or with the client.
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers at once, unless the machine is overloaded.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a running QEMU. Dropping it ends the connection.
pub struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
}

impl Qmp {
    /// Connects to `socket`, which QEMU may be about to make. Each event's name is told to `event`, by another thread.
    ///
    /// # Errors
    /// When there is no QEMU at the other end in time.
    pub fn connect(socket: &Path, event: impl FnMut(&str) + Send + 'static) -> Result<Self> {
        Self::connect_while(|| true, socket, event)
    }

    /// Like [`Qmp::connect`], and gives up when `is_alive` says that QEMU has ended.
    pub(crate) fn connect_while(
        mut is_alive: impl FnMut() -> bool,
        socket: &Path,
        event: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(why) if start.elapsed() > PATIENCE || !is_alive() => {
                    bail!("QMP cannot be reached: {why}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let reader = BufReader::new(stream.try_clone().context("QMP cannot be read")?);
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || listen(reader, &sender, event));
        let mut qmp = Self { stream, answers };
        qmp.next().context("QMP does not greet")?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Calls a command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses, is gone, or does not answer in time.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream, "{request}").with_context(|| format!("QMP {command}"))?;
        let mut answer = self.next().with_context(|| format!("QMP {command}"))?;
        if let Some(error) = answer.get("error") {
            bail!("QMP {command}: {}", error["desc"].as_str().unwrap_or(&error.to_string()));
        }
        Ok(answer.get_mut("return").map(Value::take).unwrap_or_default())
    }

    fn next(&mut self) -> Result<Value> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => bail!("QEMU does not answer"),
            Err(RecvTimeoutError::Disconnected) => bail!("QEMU has ended"),
        }
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // One that QEMU has ended before is ended.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Sorts events from answers, until either side ends.
fn listen(mut reader: BufReader<UnixStream>, answers: &Sender<Value>, mut event: impl FnMut(&str)) {
    let mut line = String::new();
    while let Ok(1..) = reader.read_line(&mut line) {
        let Ok(said) = serde_json::from_str::<Value>(&line) else { return };
        line.clear();
        if let Some(name) = said["event"].as_str() {
            event(name);
        } else if answers.send(said).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A QEMU that greets and gives these answers, one a line that it reads; the last line comes back.
    fn server(
        answers: &'static [&'static str],
    ) -> (tempfile::TempDir, std::path::PathBuf, std::thread::JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            writeln!(stream.get_mut(), r#"{{"QMP":{{}}}}"#).unwrap();
            for answer in answers {
                line.clear();
                stream.read_line(&mut line).unwrap();
                writeln!(stream.get_mut(), "{answer}").unwrap();
            }
            line
        });
        (folder, socket, server)
    }

    #[test]
    fn events_between_call_and_answer_are_told_and_passed_over() {
        let (_folder, socket, server) = server(&[
            r#"{"return":{}}"#,
            "{\"event\":\"RESUME\"}\n{\"return\":{\"running\":true}}",
            r#"{"error":{"class":"GenericError","desc":"not now"}}"#,
        ]);
        let (sender, events) = mpsc::channel();
        let mut qmp = Qmp::connect(&socket, move |event| sender.send(event.to_owned()).unwrap()).unwrap();
        assert_eq!(qmp.call("query-status", json!({})).unwrap()["running"], true);
        assert_eq!(events.try_recv().unwrap(), "RESUME");
        assert_eq!(qmp.call("quit", json!({})).unwrap_err().to_string(), "QMP quit: not now");
        assert!(server.join().unwrap().contains(r#""execute":"quit""#));
    }

    #[test]
    fn a_call_to_a_qemu_that_has_ended_fails() {
        let (_folder, socket, server) = server(&[r#"{"return":{}}"#]);
        let mut qmp = Qmp::connect(&socket, |_| ()).unwrap();
        server.join().unwrap();
        assert!(qmp.call("screendump", json!({})).is_err());
    }
}
