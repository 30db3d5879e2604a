//! From netlink messages to the plain data of a view.

use std::fmt::Write;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, Prop};

use crate::view::{Address, Link};

pub(crate) fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            LinkAttribute::LinkNetNsId(id) => link.peer_nsid = (id >= 0).then_some(id),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::PropList(properties) => {
                link.alt_names.extend(properties.into_iter().filter_map(alt_name))
            }
            LinkAttribute::LinkInfo(infos) => link.kind = infos.into_iter().find_map(kind),
            _ => {}
        }
    }
    link
}

fn alt_name(property: Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name),
        _ => None,
    }
}

fn kind(info: LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Veth) => Some("veth".to_owned()),
        LinkInfo::Kind(InfoKind::Bridge) => Some("bridge".to_owned()),
        LinkInfo::Kind(other) => Some(other.to_string()),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (at, byte) in bytes.iter().enumerate() {
        let separator = if at == 0 { "" } else { ":" };
        let _ = write!(text, "{separator}{byte:02x}");
    }
    text
}

/// `uptime` in seconds, by the clock that address stamps use.
pub(crate) fn address(message: AddressMessage, uptime: u64) -> Option<Address> {
    let mut any: Option<IpAddr> = None;
    let mut local: Option<IpAddr> = None;
    let mut age = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => any = Some(ip),
            // On a point-to-point link, `Address` is the other end.
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::CacheInfo(info) => {
                age = Some(uptime.saturating_sub(u64::from(info.cstamp) / 100))
            }
            _ => {}
        }
    }
    let ip = local.or(any)?;
    Some(Address {
        ip,
        prefix: message.header.prefix_len,
        ifindex: message.header.index,
        age,
    })
}
