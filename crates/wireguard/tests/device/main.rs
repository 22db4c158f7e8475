//! Devices against each other in virtual time, against hostile bytes and against boringtun.

mod flood;
mod handshake;
mod hostile;
mod interop;
mod pair;
mod timers;
