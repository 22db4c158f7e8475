//! The real program on loopback: alone, and with a portal.

mod certificate;
mod doctor;
mod drain;
mod driver;
mod overload;
mod portal_session;
mod requester;
mod shards;
mod stand_alone;
mod streams;
mod xdp;
