//! The tools under test: run inside a node, their reports read, and the node compared before and after.

mod fingerprint;
mod report;
mod run;
mod scene;
mod terminal;

pub use fingerprint::Fingerprint;
pub use report::{Evidence, Item, Report};
pub use run::{Ran, outside};
pub use scene::{Scene, engine_under_test, not_ready, soon};
pub use terminal::Terminal;
