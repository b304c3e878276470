//! `log`: which modules log how much.

use alloc::{boxed::Box, string::ToString};

use super::super::{Command, CommandError, command::UsageError, output::say};
use crate::logging;

pub(super) static LOG: Command = Command {
    name: "log",
    usage: "[SPEC]",
    help: "what is logged, or a change of it: info,mm=trace,kernel::swap=debug",
    run: |mut arguments| {
        Box::pin(async move {
            let spec = arguments.word();
            arguments.end()?;
            match spec {
                Some(spec) => {
                    logging::set(&spec).map_err(|why| CommandError::Usage(UsageError(why.to_string())))?;
                }
                None => say!("{}", logging::levels()),
            }
            Ok(0)
        })
    },
};
