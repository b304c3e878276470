//! Plays a scenario on the simulated machine: `cargo run -q -p mm --example vmscript -- FILE`, `-` for standard input.
//! See `docs/vmscript.md`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::process::ExitCode;

use mm_simulator::script::play;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(name), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: vmscript FILE, where - is standard input");
        return ExitCode::from(2);
    };
    let script: Box<dyn BufRead> = if name == "-" {
        Box::new(io::stdin().lock())
    } else {
        match File::open(&name) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                eprintln!("cannot read {}: {error}", name.display());
                return ExitCode::from(2);
            }
        }
    };
    match play(script, io::stdout().lock()) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot play {}: {error}", name.display());
            ExitCode::from(2)
        }
    }
}
