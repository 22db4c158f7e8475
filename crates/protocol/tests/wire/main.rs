//! What goes over the wire: golden files, round trips, and bytes from a stranger.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod hostile;
mod round_trip;
mod samples;
