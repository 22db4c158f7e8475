//! The world in one thread and in virtual time, running the very machines that ship.
//!
//! A [`World`] holds clients and gateways (`adit_tunnel`'s machines with `adit_dataplane`'s workers), relays
//! (`adit_turn`'s server) and a small portal, on a network of NATs (RFC 4787), delays, jitter, loss,
//! duplication and reordering. One seed decides everything, so a seed that fails fails again.
//!
//! [`Transition`]s are what users, administrators and misfortune do. [`World::apply`] does one,
//! [`World::run_for`] lets time pass. Applications send numbered probes all the while. The [`model`] is the judge:
//! from the transitions alone, and knowing nothing of how the machines work, it says which probe must be
//! answered and by when, and which must never arrive. [`explore`] makes random stories, lets the model judge
//! them, and shortens those that fail.
//!
//! # Deliberately absent
//!
//! Kernels, sockets, threads and TLS: they are `lab`'s. Sessions with the portal are lossless and in order while
//! they last, as TLS makes them, and end when a host is cut off for long, dies, or the portal does.

#![forbid(unsafe_code)]
#![allow(clippy::expect_used, reason = "the simulator is a test: a broken assumption must stop it")]

pub mod computer;
pub mod explore;
pub mod model;
mod nat;
mod network;
pub mod packets;
mod portal;
mod relay;
pub mod steady;
pub mod transition;
mod world;

pub use nat::{Filtering, Mapping};
pub use transition::Transition;
pub use world::{Arrival, Probe, Shape, World};
