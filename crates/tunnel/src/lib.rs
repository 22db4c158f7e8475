//! The state machines of client and gateway.

#![forbid(unsafe_code)]
