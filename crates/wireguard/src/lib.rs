//! WireGuard as a pure machine: handshake, cookies, transport sessions and timers.

#![forbid(unsafe_code)]
