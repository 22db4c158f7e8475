//! Client, gateway, workers, relay and a toy portal in one world with virtual time.
//!
//! One binary for all behaviours, so that the world is compiled once.

mod host;
mod network;
mod other_family;
mod packets;
mod portal;
mod relay;
mod world;

mod access_by_address;
mod access_by_name;
mod buffering;
mod expiry;
mod filters;
mod flows;
mod goodbye;
mod grant_on_its_way;
mod hostile_packets;
mod interface;
mod other_gateway;
mod portal_away;
mod relayed;
mod restart;
mod roaming;
mod translation;
