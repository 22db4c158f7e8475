//! The server machine, asked by a client that says exactly what a test wants.

mod behaviour;
mod errors;
mod properties;
mod requester;
mod routes;
mod streams;
