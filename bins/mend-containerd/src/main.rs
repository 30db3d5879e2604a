//! `mend-containerd`.

fn main() {}
