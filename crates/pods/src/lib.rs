//! Orphaned kubelet pod directories: found, proven, unblocked or purged without losing data.
#![forbid(unsafe_code)]

mod claims;
mod from_log;
mod judge;
mod layout;
mod mount;
mod pod;
mod runtimes;
mod scene;
mod survey;
mod testimony;
mod uid;
mod volume;

pub use from_log::{Named, from_log};
pub use judge::{Policy, plan};
pub use layout::{DEFAULT_KUBELET_ROOT, FoundRoot, Layout, LayoutError, LayoutOptions, find_root, layout};
pub use mount::{PodMount, Seer, Tie};
pub use pod::{PodDir, PodIdentity, PodName};
pub use scene::{live_pods, silent};
pub use survey::{SURVEY_VERSION, Survey};
pub use testimony::{API_SERVER, BLOCKS, CGROUPS, CHECKPOINTS, KUBELET, MANIFESTS, PROCESSES};
pub use testimony::{Access, Answer, Known, KubeletProcess, Testimony, testimony};
pub use uid::{NotAUid, Uid};
pub use volume::{Class, Content, CsiVolume, Part, Volume};
