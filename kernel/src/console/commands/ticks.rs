//! `ticks`: how late the 10 ms ticker was.

use alloc::{boxed::Box, string::ToString};
use core::time::Duration;

use executor::time;

use super::super::{Command, CommandError, output::say, ticker};

const MAX_SECONDS: u64 = 3600;

pub(super) static TICKS: Command = Command {
    name: "ticks",
    usage: "[SECONDS]",
    help: "how late a task was that runs every 10 ms, since boot; waits SECONDS first",
    run: |mut arguments| {
        Box::pin(async move {
            let seconds = arguments.number("SECONDS", 0, MAX_SECONDS)?.unwrap_or(0);
            arguments.end()?;
            if !ticker::is_running() {
                return Err(CommandError::Failed("the kernel was started with ticker=off".to_string()));
            }
            time::sleep(Duration::from_secs(seconds)).await;
            let lateness = ticker::lateness();
            if lateness.count() == 0 {
                say!("no tick so far");
                return Ok(0);
            }
            let us = |ns: u64| ns.div_ceil(1000);
            say!("{} ticks since boot, one every {} ms", lateness.count(), ticker::PERIOD.as_millis());
            say!("median          {:>9} us late", us(lateness.percentile(50)));
            say!("99th percentile {:>9} us late", us(lateness.percentile(99)));
            say!("worst           {:>9} us late", us(lateness.worst()));
            Ok(0)
        })
    },
};
