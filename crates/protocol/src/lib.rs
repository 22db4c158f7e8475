//! Wire contracts between portal, client, gateway and relay, and between peers.

#![forbid(unsafe_code)]
