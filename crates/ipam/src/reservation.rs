//! One reservation: a file that says that an address is taken.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodemend_evidence::Subject;
use nodemend_hostfs::FileId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::Form;

/// How a reservation is freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Repair {
    /// By the plugins themselves: the DEL of its attachment, from libcni's cache. It frees what else the
    /// attachment had: port mappings, masquerading, the other addresses.
    Replay,
    /// By moving the file out of the network's directory.
    #[default]
    Move,
}

/// A file in a network directory of host-local. Strings are shared: a node has up to tens of thousands of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The network: the name of the directory.
    pub network: Arc<str>,
    /// The directory.
    pub dir: Arc<str>,
    /// The name of the file, for people: bytes that are no text are replaced. Exact for an address.
    pub file: Arc<str>,
    /// The address, if the name is one.
    pub ip: Option<IpAddr>,
    /// The container id, if the file names one.
    pub id: Option<Arc<str>>,
    /// The interface inside the container, if the file names one.
    pub ifname: Option<Arc<str>>,
    /// What the file holds.
    pub form: Form,
    /// Device and inode.
    pub identity: FileId,
    /// Last change of the content, in seconds since 1970.
    pub mtime: i64,
    /// The nanoseconds of that.
    pub mtime_nanos: u32,
    /// Seconds since that change; none if it lies in the future.
    pub age: Option<u64>,
    /// Bytes in it.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// The text in it, exactly. Empty unless the form is one of host-local's.
    pub content: Arc<str>,
    /// How it would be freed.
    pub repair: Repair,
}

impl Reservation {
    /// Where it is. Exact for an address in a network that this node's configuration names.
    pub fn path(&self) -> PathBuf {
        Path::new(&*self.dir).join(&*self.file)
    }
}

/// What makes it this reservation and no other: an inode number is used again, and so is an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReservationIdentity {
    /// The directory.
    pub dir: Arc<str>,
    /// The name.
    pub file: Arc<str>,
    /// Device and inode.
    pub identity: FileId,
    /// Last change of the content: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The text in it.
    pub content: Arc<str>,
}

impl Subject for Reservation {
    type Identity = ReservationIdentity;

    fn identity(&self) -> ReservationIdentity {
        ReservationIdentity {
            dir: self.dir.clone(),
            file: self.file.clone(),
            identity: self.identity,
            mtime: (self.mtime, self.mtime_nanos),
            content: self.content.clone(),
        }
    }

    fn title(&self) -> String {
        let mut title = format!("{} ({})", self.file, self.network);
        let holder = match (&self.form, &self.id) {
            (Form::Empty, _) => "  empty file".to_owned(),
            (_, Some(id)) => format!("  {id} {}", self.ifname.as_deref().unwrap_or_default()),
            (_, None) => String::new(),
        };
        title.push_str(holder.trim_end());
        title
    }

    fn action(&self) -> String {
        match self.repair {
            Repair::Replay => {
                "run the CNI DEL of its attachment from libcni's cache, which frees its addresses and port mappings".to_owned()
            }
            Repair::Move => "move the file out of the way, so that the address is free".to_owned(),
        }
    }
}
