//! The doorstep of `localcloud`.

fn main() {}
