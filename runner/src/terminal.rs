//! The user's terminal while it belongs to the machine's console.
use std::io::{IsTerminal as _, Read as _, Write};

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Keys reach the machine one by one and the machine echoes them. Ctrl-C still interrupts the runner. The
/// terminal is as before when this is dropped.
#[derive(Debug)]
pub struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    /// Changes the terminal on standard input; does nothing when there is none.
    pub fn enter() -> Self {
        let stdin = std::io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN);
            raw.input_modes &= !(InputModes::IXON | InputModes::ICRNL);
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Self { before }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies standard input to `console` from a thread of its own, until either ends.
pub fn forward_input(mut console: impl Write + Send + 'static) {
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
            if console.write_all(&bytes[..count]).and_then(|()| console.flush()).is_err() {
                return;
            }
        }
    });
}
