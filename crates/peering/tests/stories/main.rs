//! Stories of connections between real nodes, through NATs and real relays, in virtual time.

mod connects;
mod control;
mod endures;
mod garbage;
mod goodbye;
mod liveness;
mod mtu;
mod relays;
mod reset;
mod roams;
mod streams;
mod world;
