//! Removes a directory tree in parallel, and never leaves it.
//!
//! - Every step is one name below one open directory, so no path is ever resolved twice. What lies behind a mount, bind
//!   mounts of the same file system included, or behind a symlink is not entered, whoever renames things meanwhile.
//! - An error does not end the run: it is recorded, its ancestors stay, and all else goes.
//! - The work is spread as the file system likes it: see [`Policy`].
//! - The memory and the open directories that a run needs are bounded, whatever the tree looks like.
//!
//! ```
//! use nodemend_rmtree::{Options, Tree, remove};
//!
//! # let scratch = tempfile::tempdir()?;
//! let path = scratch.path().join("snapshots");
//! std::fs::create_dir_all(path.join("1/fs/etc"))?;
//! std::fs::write(path.join("1/fs/etc/hosts"), "")?;
//!
//! let report = remove(Tree::open(&path)?, &Options::default(), &mut ());
//! assert!(report.gone(), "{:?}", report.problems);
//! assert_eq!((report.removed.files, report.removed.directories), (1, 4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Tree::open`] judges the root, and holds it: what is removed is that directory, and no other that gets its name later.
//! An [`Observer`] sees the progress, and may slow the run down or stop it.

mod aside;
mod dir;
mod error;
mod flags;
mod gate;
mod names;
mod observer;
mod openings;
mod options;
mod policy;
mod problems;
mod queue;
mod remove;
mod report;
mod subvolume;
mod sys;
mod tally;
mod tree;
mod worker;

use nodemend_hostfs::descent;

pub use aside::{Aside, Found, Lookalike, find, marker, put_back, set_aside, unmark};
pub use error::Error;
pub use observer::{Observer, Pace, Progress};
pub use options::{Options, Urgency};
pub use policy::{FileSystem, Lanes, Policy};
pub use remove::remove;
pub use report::{End, Problem, Reason, Removed, Report, Step};
pub use subvolume::{Subvolume, subvolumes_inside};
pub use tree::Tree;
