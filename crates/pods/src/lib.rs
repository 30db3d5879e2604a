//! Orphaned kubelet pod directories: found, proven, unblocked or purged without losing data.
#![forbid(unsafe_code)]

mod layout;
mod mount;
mod pod;
mod survey;
mod testimony;
mod uid;
mod volume;

pub use layout::Layout;
pub use mount::{PodMount, Seer, Tie};
pub use pod::{PodDir, PodIdentity, PodName};
pub use survey::{SURVEY_VERSION, Survey};
pub use testimony::{Answer, Known, Testimony};
pub use uid::{NotAUid, Uid};
pub use volume::{Class, Content, CsiVolume, Part, Volume};
