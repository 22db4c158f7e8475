//! The real program on loopback: alone, and with a portal.

mod driver;
mod portal_session;
mod stand_alone;
