//! A client of QMP, by which the host types, interrupts and looks.
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers at once, unless the machine is overloaded.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a running QEMU.
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to `socket`, which QEMU may be about to make.
    ///
    /// # Errors
    /// When there is no QEMU at the other end in time.
    pub fn connect(socket: &Path) -> Result<Self> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(why) if start.elapsed() > PATIENCE => bail!("QMP cannot be reached: {why}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.next().context("QMP does not greet")?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Calls a command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses or is gone.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").with_context(|| format!("QMP {command}"))?;
        loop {
            let mut answer = self.next().with_context(|| format!("QMP {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QMP {command}: {error}");
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            // Anything else is an event.
        }
    }

    fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Types on the machine's keyboard (US layout), each key for `hold`.
    ///
    /// # Errors
    /// When a character has no key, or QEMU is gone.
    pub fn type_keys(&mut self, text: &str, hold: Duration) -> Result<()> {
        for character in text.chars() {
            let names = keys(character).with_context(|| format!("there is no key for {character:?}"))?;
            let keys: Vec<Value> =
                names.iter().map(|name| json!({ "type": "qcode", "data": name })).collect();
            let hold = u64::try_from(hold.as_millis())?;
            self.call("send-key", json!({ "keys": keys, "hold-time": hold }))?;
            // QEMU drops what is sent while the last key is down.
            std::thread::sleep(Duration::from_millis(hold * 2));
        }
        Ok(())
    }

    /// Sends a non-maskable interrupt to all processors.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn inject_nmi(&mut self) -> Result<()> {
        self.call("inject-nmi", json!({})).map(drop)
    }
}

/// The keys that make a character, as QEMU names them.
fn keys(character: char) -> Option<Vec<String>> {
    let plain = match character {
        'a'..='z' | '0'..='9' => character.to_string(),
        'A'..='Z' => return Some(vec!["shift".into(), character.to_ascii_lowercase().to_string()]),
        _ => {
            let named = [
                ('\n', "ret"),
                (' ', "spc"),
                ('\t', "tab"),
                ('\u{8}', "backspace"),
                ('\u{1b}', "esc"),
                ('-', "minus"),
                ('=', "equal"),
                ('.', "dot"),
                (',', "comma"),
                ('/', "slash"),
                (';', "semicolon"),
                ('\'', "apostrophe"),
            ];
            named.iter().find(|(key, _)| *key == character)?.1.to_owned()
        }
    };
    Some(vec![plain])
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn events_between_call_and_answer_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            writeln!(stream.get_mut(), r#"{{"QMP":{{}}}}"#).unwrap();
            for answer in [
                r#"{"return":{}}"#,
                "{\"event\":\"RESUME\"}\n{\"return\":{\"running\":true}}",
                r#"{"error":{}}"#,
            ] {
                line.clear();
                stream.read_line(&mut line).unwrap();
                writeln!(stream.get_mut(), "{answer}").unwrap();
            }
            line
        });
        let mut qmp = Qmp::connect(&socket).unwrap();
        assert_eq!(qmp.call("query-status", json!({})).unwrap()["running"], true);
        assert!(qmp.call("quit", json!({})).is_err());
        assert!(server.join().unwrap().contains(r#""execute":"quit""#));
    }

    #[test]
    fn characters_are_found_on_the_keyboard() {
        assert_eq!(keys('a').unwrap(), ["a"]);
        assert_eq!(keys('H').unwrap(), ["shift", "h"]);
        assert_eq!(keys('\n').unwrap(), ["ret"]);
        assert_eq!(keys('ä'), None);
    }
}
