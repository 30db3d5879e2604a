//! What runs inside a node, or beside it: each is a hidden subcommand of the lab's binary, which re-executes itself.

pub mod application;
pub mod bridge;
pub mod conmon;
pub mod detach;
pub mod hold;
pub mod hook;
pub mod init;
pub mod janitor;
pub mod look;
