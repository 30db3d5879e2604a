//! Orphaned kubelet pod directories: found, proven, unblocked or purged without losing data.
#![forbid(unsafe_code)]

mod again;
mod apply;
mod archive;
mod block;
mod claims;
mod details;
mod embedded;
mod error;
mod from_log;
mod held;
mod intent;
mod judge;
mod layout;
mod loss;
mod measure;
mod mount;
mod pod;
mod quarantine;
mod restore;
mod runtimes;
mod scene;
mod survey;
mod testimony;
mod uid;
mod volume;

pub use again::ThirdLook;
pub use apply::{Again, Looks, Outcomes, Places, Purge, Repair, Tools, apply};
pub use block::{BlockLink, LinkKind};
pub use details::Details;
pub use error::Error;
pub use from_log::{Named, from_log};
pub use judge::{Ownerless, Policy, plan};
pub use layout::{DEFAULT_KUBELET_ROOT, FoundRoot, Layout, LayoutError, LayoutOptions, find_root, layout};
pub use loss::{Loss, Sum};
pub use mount::{PodMount, Seer, Tie};
pub use nodemend_runtime::Discovery;
pub use pod::{PodDir, PodIdentity, PodName};
pub use quarantine::{KeptItem, MANIFEST_VERSION, Manifest, QUARANTINE};
pub use restore::{Kept, RestoreReport, restorable, restore};
pub use scene::{live_pods, silent};
pub use survey::{SURVEY_VERSION, Survey, SurveyError, SurveyOptions, survey};
pub use testimony::{API_SERVER, BLOCKS, CGROUPS, CHECKPOINTS, KUBELET, MANIFESTS, PROCESSES};
pub use testimony::{Access, Answer, Known, KubeletProcess, Testimony, testimony};
pub use uid::{NotAUid, Uid};
pub use volume::{Class, Content, CsiVolume, Part, Volume};
