//! `mend-rm`: removes a directory tree, and never leaves it.

fn main() {}
