//! Sandboxes that no runtime answers for.
#![forbid(unsafe_code)]

mod sandbox;

pub use sandbox::{
    Bundle, Cgroup, Container, Network, Process, Sandbox, SandboxIdentity, SandboxMount, Shim, Task,
};
