//! What the container runtimes of a node know of its sandboxes, each source with a deadline.
//!
//! A broken node is one where the runtime may be gone, hung, restarted a moment ago, or alive without its records. So
//! more than one source is asked, all at once, and each says either everything that it knows or why it said nothing:
//!
//! | source | what it is | a record? |
//! |---|---|---|
//! | `cri <endpoint>` | the list that kubelet gets, v1 or v1alpha2 | yes |
//! | `containerd <endpoint> containers` | containerd's own list, in every namespace of it | yes |
//! | `containerd <endpoint> sandboxes` | the sandbox store, from 1.7 on | yes |
//! | `containerd <endpoint> tasks` | what containerd sees running | no |
//! | `shim processes` | containerd's shims and conmon | no |
//! | `shim bundles` | the directories of running containers | no |
//! | `container ids in cgroups` | the ids that processes carry | no |
//!
//! An empty list of a runtime that came up within the last minute is no answer. Nor is one while its shims run, or
//! containers that no runtime knows: its records may have been lost.
//!
//! - [`discover`] finds the endpoints, [`discover_with_shims`] those, too, that only shims name;
//! - [`survey`] asks, and gives plain data that can be recorded: [`Knowledge`];
//! - [`Index`] answers questions about ids and network namespaces from it, as evidence;
//! - [`leftovers`] finds the shims, the bundles and the state of runc themselves, each with what makes it this one and no other;
//! - [`metadata_files`] says when containerd's database was made: nothing older than it can be in it;
//! - [`cni_directories`] asks where a runtime has its CNI plugins and configurations;
//! - [`greet`] asks one runtime whether it is there at all;
//! - [`daemons`] says where the daemons of a node live: their roots, state and configurations.
//!
//! Except for what says so by its name ([`delete_task`], [`ImageStore`]), only calls without side effects are made. In particular PodSandboxStatus is not: in containerd it can remove the
//! path of a network namespace.
//!
//! ```
//! use nodemend_evidence::{Claim, Source};
//! use nodemend_hostfs::FileId;
//! use nodemend_procns::Census;
//! use nodemend_runtime::{Answer, Index, Known, Knowledge, NetnsRef, Record, RecordKind};
//!
//! let netns = FileId { dev: 4, ino: 4026532201 };
//! let sandbox = Record {
//!     kind: RecordKind::Sandbox,
//!     id: "8f3a5c9e".into(),
//!     sandbox_id: Some("8f3a5c9e".into()),
//!     namespace: Some("k8s.io".into()),
//!     state: None,
//!     pid: None,
//!     netns: Some(NetnsRef { path: "/run/netns/cni-1".into(), id: Some(netns) }),
//!     host_network: false,
//!     pod: None,
//! };
//! let containerd = Source::new("containerd /run/containerd/containerd.sock containers");
//! let answers = vec![Answer { source: containerd, known: Known::Records(vec![sandbox]) }];
//! let index = Index::new(&Knowledge { answers }, &Census::default(), &[]);
//!
//! assert!(matches!(index.of_netns(netns, &[])[0].claim, Claim::InUse(_)));
//! assert!(matches!(index.of_id("8f3a5c9e")[0].claim, Claim::InUse(_)));
//! // Never by a part of the id.
//! assert!(matches!(index.of_id("8f3a")[0].claim, Claim::Absent(_)));
//! ```
//!
//! Asking a node takes a tokio runtime, or [`blocking::survey`]:
//!
//! ```no_run
//! use nodemend_hostfs::Host;
//! use nodemend_procns::Census;
//! use nodemend_runtime::{DEFAULT_DEADLINE, Discovery, Index, blocking, discover};
//!
//! # fn census() -> Census { Census::default() }
//! let host = Host::local();
//! let census = census(); // taken before the runtimes are asked
//! let endpoints = discover(&host, &Discovery::default());
//! let knowledge = blocking::survey(&host, &endpoints, &census, DEFAULT_DEADLINE);
//! for reason in Index::new(&knowledge, &census, &[]).silent() {
//!     // A source that did not answer: nothing that depends on it is proven.
//!     assert!(!reason.is_empty());
//! }
//! ```
//!
//! # Building
//!
//! The crates `k8s-cri` and `containerd-client` make their code from protobuf files when they are built, and need
//! `protoc` for it (package `protobuf-compiler`), on the `PATH` or named by the variable `PROTOC`. If it is missing,
//! their build scripts fail, and say so, before anything of this crate is looked at.
#![forbid(unsafe_code)]

pub mod blocking;
mod bundles;
mod cgroups;
mod cni;
mod containerd;
mod cri;
pub mod daemons;
mod empty;
mod endpoint;
mod greeting;
mod images;
mod index;
mod knowledge;
mod leftovers;
mod line;
mod metadata;
mod metadata_file;
mod named;
mod netns;
mod ownership;
mod runc;
mod shims;
mod sources;
mod survey;
mod tasks;

pub use bundles::BundleDir;
pub use cni::{CniDirectories, cni_directories};
pub use endpoint::{Discovery, Endpoint, WELL_KNOWN, discover};
pub use greeting::{Greeting, Mute, greet};
pub use images::{BlobToBring, Brought, ImageStore, ImageToBring};
pub use index::Index;
pub use knowledge::{Answer, Knowledge, Known, NetnsRef, Pod, Record, RecordKind};
pub use leftovers::{Leftovers, leftovers};
pub use metadata_file::{Made, MetadataFile, metadata_files};
pub use named::discover_with_shims;
pub use runc::RuncState;
pub use shims::{Keeper, Shim};
pub use survey::{DEFAULT_DEADLINE, survey};
pub use tasks::{TaskEnd, delete_task};
