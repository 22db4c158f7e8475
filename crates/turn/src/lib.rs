//! STUN and TURN: codec, client machine and server machine.

#![forbid(unsafe_code)]
