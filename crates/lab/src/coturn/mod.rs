//! coturn, the relay that everybody knows: its server as what ours is compared with, its client as a judge of ours.

pub(crate) mod client;
pub(crate) mod server;

pub use server::Build;
