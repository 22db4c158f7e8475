//! The gateway `adit-gateway`.

fn main() {}
