//! Workers with real sessions between them, in virtual time.

mod flows;
mod hostile;
mod nat;
mod other_family;
mod paths;
mod super_packets;
mod world;
