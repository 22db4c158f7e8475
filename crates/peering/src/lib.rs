//! One peer: an ICE agent and a WireGuard tunnel that live and die together.

#![forbid(unsafe_code)]
