//! The portal `adit-portal`: API, sessions, identity, storage and audit.

fn main() {}
