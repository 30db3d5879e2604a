//! The ways in which a node breaks: one method for each, named after what it leaves behind.

mod aging;
mod crowd;
mod foreign;
mod forgotten;
mod holders;
mod host_network;
mod in_flight;
mod pairs;
mod reservations;

pub use crowd::Crowd;
pub use in_flight::InFlight;
pub use reservations::{Reservation, random_id};
