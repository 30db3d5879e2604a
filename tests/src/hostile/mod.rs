//! Trees that are dangerous to remove, and everything around them, which must stay as it is.
//!
//! A [`Stage`] is a disk of its own with a tree on it and a victim beside it. A test puts into the tree what leads out of it,
//! runs a removal in a process of its own, and is told what of the rest changed: see [`Outside`].

mod adversary;
mod build;
pub mod naive;
mod outside;
mod program;
pub mod remover;
mod stage;

pub use adversary::{Adversary, Pair};
pub use build::{Dir, Flag, Opened, flag_of, set_flag};
pub use outside::Outside;
pub use program::{Ended, Program, end_of};
pub use remover::{Outcome, Stayed};
pub use stage::{Left, Stage};
