//! JSON Lines logs with rotation, metrics and panic capture.
//!
//! Every program calls [`init`] once, first thing in `main`, and keeps the [`Guard`] until it returns. From
//! then on each `tracing` event and each panic becomes exactly one JSON object on one line, so that `cat
//! *.log | jq -r '"\(.time) \(.severity) \(.message)"'` works on any mix of files from any of our programs.
//!
//! How a line travels: the emitting thread encodes it ([`mod@line`]), puts it into a bounded queue and goes on;
//! one writer thread per program ([`sink`]) drains the queue into the rotated file ([`mod@file`]) and the
//! console. A full queue or a full disk loses lines, never the program: losses are counted and announced in
//! the log as soon as there is room again.
//!
//! Metrics are recorded through the `metrics` façade ([`mod@metrics`]) and read through a small HTTP server
//! ([`health`]).
//!
//! Deliberately absent: shipping logs over the network, sampling, colours, human formats. `jq` is the human
//! format.

#![forbid(unsafe_code)]

pub mod file;
pub mod health;
mod init;
mod layer;
pub mod level;
pub mod line;
pub mod metrics;
mod panic;
pub mod sink;

pub use health::{HealthServer, Readiness};
pub use init::{Config, Guard, InitError, init};
pub use level::{LevelError, LevelHandle};
pub use metrics::MetricsHandle;
