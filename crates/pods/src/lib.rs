//! Orphaned kubelet pod directories: found, proven, unblocked or purged without losing data.
#![forbid(unsafe_code)]

mod apply;
mod archive;
mod error;
mod held;
mod layout;
mod measure;
mod mount;
mod pod;
mod quarantine;
mod restore;
mod survey;
mod testimony;
mod uid;
mod volume;

pub use apply::{Again, Looks, Outcomes, Places, Purge, Repair, Tools, apply};
pub use error::Error;
pub use layout::Layout;
pub use mount::{PodMount, Seer, Tie};
pub use pod::{PodDir, PodIdentity, PodName};
pub use quarantine::{KeptItem, MANIFEST_VERSION, Manifest, QUARANTINE};
pub use restore::{Kept, RestoreReport, restorable, restore};
pub use survey::{SURVEY_VERSION, Survey};
pub use testimony::{Answer, Known, Testimony};
pub use uid::{NotAUid, Uid};
pub use volume::{Class, Content, CsiVolume, Part, Volume};
