//! A whole portal in this process, spoken to as peers and administrators do: over sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod acme;
mod api;
mod archive;
mod backend;
mod command_line;
mod conditions;
mod crash;
mod declarations;
mod device_sign_in;
mod devices;
mod directory;
mod flows;
mod ground;
mod hostile;
mod operations;
mod permissions;
mod program;
mod providers;
mod real_provider;
mod relays;
mod repeated;
mod revocation;
mod scripted_provider;
mod sign_in;
mod sign_in_codes;
mod texts;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod wall_clock;
mod world;
