//! The client daemon `aditd` and the command line `adit`.

fn main() {}
