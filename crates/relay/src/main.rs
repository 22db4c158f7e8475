//! The relay `adit-relay`.

fn main() {}
