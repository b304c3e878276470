//! Boots the test kernels.
