//! Developer commands: demo, test, lab, lint, bench.

fn main() {}
