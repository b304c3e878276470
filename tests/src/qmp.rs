//! QEMU's own control, by which the host types, interrupts and looks.
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use faultline::qmp;
use serde_json::{Value, json};

/// A connection to a running QEMU.
pub struct Qmp(qmp::Qmp);

impl Qmp {
    /// Connects to `socket`, which QEMU may be about to make.
    ///
    /// # Errors
    /// When there is no QEMU at the other end in time.
    pub fn connect(socket: &Path) -> Result<Self> {
        qmp::Qmp::connect(socket, |_| ()).map(Self)
    }

    /// Calls a command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses or is gone.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.0.call(command, arguments)
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

    /// As [`type_keys`](Self::type_keys), where the last key makes the machine end: QEMU may be gone before it has answered.
    ///
    /// # Errors
    /// When a key before the last cannot be typed.
    pub fn type_last_keys(&mut self, text: &str, hold: Duration) -> Result<()> {
        let (last, _) = text.char_indices().next_back().context("there is no last key")?;
        self.type_keys(&text[..last], hold)?;
        // The machine's status tells whether the key has come.
        let _may_be_gone = self.type_keys(&text[last..], hold);
        Ok(())
    }

    /// Presses a key that QEMU knows by this name.
    ///
    /// # Errors
    /// When there is none, or QEMU is gone.
    pub fn press(&mut self, key: &str) -> Result<()> {
        const HOLD_MS: u64 = 40;
        let key = json!({ "type": "qcode", "data": key });
        self.call("send-key", json!({ "keys": [key], "hold-time": HOLD_MS }))?;
        // QEMU drops what is sent while the last key is down.
        std::thread::sleep(Duration::from_millis(2 * HOLD_MS));
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
    use super::*;

    #[test]
    fn characters_are_found_on_the_keyboard() {
        assert_eq!(keys('a').unwrap(), ["a"]);
        assert_eq!(keys('H').unwrap(), ["shift", "h"]);
        assert_eq!(keys('\n').unwrap(), ["ret"]);
        assert_eq!(keys('ä'), None);
    }
}
