//! The doorstep of `host-worker`.

fn main() {}
