//! What the resolver promises, as stories in virtual time.

mod cache;
mod forwarder;
mod hostile;
mod messages;
mod patterns;
mod proxy_addresses;
mod server;
mod stub;
mod tcp;
