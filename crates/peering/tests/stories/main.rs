//! Stories of connections between real nodes, through NATs and real relays, in virtual time.

mod connects;
mod world;
