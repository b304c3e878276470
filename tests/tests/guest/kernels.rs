//! The test kernels: one line a test.
use faultline_tests::Case;

/// Every test that a test kernel judges itself.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
