//! The server machine, asked by a client that says exactly what a test wants.

mod attacks;
mod behaviour;
mod errors;
mod integrity;
mod lifetimes;
mod properties;
mod requester;
mod routes;
mod siblings;
mod streams;
