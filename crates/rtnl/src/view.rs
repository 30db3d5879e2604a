//! What one network namespace holds: plain data, recorded and replayed.

use std::net::IpAddr;

use nodemend_procns::NetnsId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One look into one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Which namespace.
    pub netns: NetnsId,
    /// What was seen in it.
    #[serde(flatten)]
    pub seen: Seen,
}

/// What a look gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "seen", rename_all = "camelCase")]
pub enum Seen {
    /// Its links and addresses, all of them.
    #[serde(rename_all = "camelCase")]
    Inside {
        /// The id that the host gives to this namespace (`RTM_GETNSID`, Linux 4.0). None if it gave it none: no
        /// link leads from the host into it. Also None where the kernel has no such ids: then no link has a
        /// [`Link::peer_nsid`] either.
        nsid: Option<i32>,
        /// The id that this namespace gives to the host.
        host_nsid: Option<i32>,
        /// The links.
        links: Vec<Link>,
        /// The addresses.
        addresses: Vec<Address>,
    },
    /// The kernel let nobody in, because …
    Unknown {
        /// Why.
        reason: String,
    },
    /// It ended between the census and the look: nothing holds it any more.
    Ended,
}

/// One network interface (rtnetlink(7), `RTM_NEWLINK`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Its index, unique in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// `veth`, `bridge` …; none for a physical device.
    pub kind: Option<String>,
    /// Hardware address, as `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// `IFLA_MASTER`: the index of the bridge or bond that it is part of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: for a veth, the index of its peer, in the namespace of `peer_nsid`.
    pub peer: Option<u32>,
    /// `IFLA_LINK_NETNSID` (Linux 4.0): the id that this namespace gives to the one of the peer. None if the
    /// peer is in the same namespace, or the kernel does not tell.
    pub peer_nsid: Option<i32>,
    /// `IFLA_GROUP`.
    pub group: u32,
    /// `IFLA_IFALIAS`: somebody's note.
    pub alias: Option<String>,
    /// `IFLA_PROP_LIST`: other names that somebody gave it.
    pub alt_names: Vec<String>,
}

/// One address of an interface (`RTM_NEWADDR`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix: u8,
    /// The interface it is configured on.
    pub ifindex: u32,
    /// How long ago it was configured, in seconds: from `IFA_CACHEINFO`, which counts since boot.
    pub age: Option<u64>,
}
