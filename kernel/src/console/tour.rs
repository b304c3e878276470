//! The tour: the main thing, shown in some seconds.

use super::output::say;

/// Gives the tour; returns its status.
pub(super) async fn give() -> u8 {
    say!("the tour");
    0
}
