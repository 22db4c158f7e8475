//! Flow table, forwarding state and the per-packet work of a worker.

#![forbid(unsafe_code)]
