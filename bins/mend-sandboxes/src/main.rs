//! `mend-sandboxes`.

fn main() {}
