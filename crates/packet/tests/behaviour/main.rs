//! What the crate promises, checked from outside and against etherparse as an independent builder and checksummer.

mod checksums;
mod coalesce;
mod edits;
mod hostile;
mod icmp_errors;
mod limits;
mod rewrite;
mod samples;
mod split;
mod streams;
mod translate;
mod view;
