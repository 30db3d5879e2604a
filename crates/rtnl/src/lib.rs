//! What the kernel says of links, addresses and network namespace ids, in this namespace and in others.

mod view;

pub use view::{Address, Link, Seen, View};
