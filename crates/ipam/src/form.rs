//! The forms of host-local's files. Pure: names and bytes in, forms out.
//!
//! Source of the facts: containernetworking/plugins, `plugins/ipam/host-local/backend/disk/backend.go`.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is in a reservation file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// The container id, CR LF, and the interface (plugins v0.8.0 and later).
    Modern,
    /// The container id alone (plugins before v0.8.0). The same plugin still frees it today.
    Legacy,
    /// Nothing: what a crash or a full disk leaves between the creation of the file and the write. No DEL can
    /// ever match it.
    Empty,
    /// None of host-local's forms, because … Somebody else made it.
    Foreign(Arc<str>),
    /// It could not be read, because … Nobody can say what it is.
    Unread(Arc<str>),
}

/// What the name of a file in a network directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// An address, spelled as host-local spells it.
    Address(IpAddr),
    /// host-local's own: the lock, and where its round robin stands. No reservation.
    Bookkeeping,
    /// Something else, because …
    Foreign(&'static str),
}

/// Reads a file name. Only the spelling that Go's `net.IP.String` gives is host-local's own.
pub(crate) fn name(bytes: &[u8]) -> Name {
    if bytes == b"lock" || bytes == b"last_reserved_ip" || bytes.starts_with(b"last_reserved_ip.") {
        return Name::Bookkeeping;
    }
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= 45) else {
        return Name::Foreign("its name is no IP address");
    };
    match text.parse::<IpAddr>() {
        Ok(ip) if is_canonical(ip, text) => Name::Address(ip),
        Ok(_) => Name::Foreign("its name is an IP address in a spelling that host-local does not use"),
        Err(_) => Name::Foreign("its name is no IP address"),
    }
}

fn is_canonical(ip: IpAddr, text: &str) -> bool {
    match ip {
        // The parser takes no other spelling than the four plain decimals.
        IpAddr::V4(_) => true,
        // Go writes such an address as IPv4.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none() && v6.to_string() == text,
    }
}

/// The parts of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Modern { id: &'a str, ifname: &'a str },
    Legacy { id: &'a str },
    Empty,
    Foreign(&'static str),
}

/// Reads the content of a file. White space around it does not count, as in `ReleaseByKey`.
pub(crate) fn content(bytes: &[u8]) -> Content<'_> {
    if bytes.is_empty() {
        return Content::Empty;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Content::Foreign("it holds bytes that are no text");
    };
    let text = text.trim();
    if text.is_empty() {
        return Content::Foreign("it holds nothing but white space, which host-local never writes");
    }
    match text.split_once("\r\n") {
        None if is_container_id(text) => Content::Legacy { id: text },
        None => Content::Foreign("what it holds is no container id of a known form"),
        Some((id, _)) if !is_container_id(id) => {
            Content::Foreign("its first line is no container id of a known form")
        }
        Some((_, ifname)) if !is_interface(ifname) => {
            Content::Foreign("its second line is no name of an interface")
        }
        Some((id, ifname)) => Content::Modern { id, ifname },
    }
}

/// An id as the runtimes give it: 64 hex digits, or, from nerdctl (`pkg/ocihook`), these with the containerd
/// namespace and a dash before them. Shorter ones match by accident, and free text is somebody's note.
pub(crate) fn is_container_id(id: &str) -> bool {
    let Some(split) = id.len().checked_sub(64).filter(|at| id.is_char_boundary(*at)) else {
        return false;
    };
    let (before, digits) = id.split_at(split);
    let known_before = before.is_empty() || before.strip_suffix('-').is_some_and(is_namespace);
    known_before
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The 64 digits of an id, without what nerdctl puts before them.
pub(crate) fn bare_id(id: &str) -> &str {
    id.len().checked_sub(64).and_then(|at| id.get(at..)).unwrap_or(id)
}

fn is_namespace(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 76
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// A name that the kernel takes for an interface (`dev_valid_name` in net/core/dev.c).
fn is_interface(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 15
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f9f8f1c2e6a5f0fb4e9a9a8d7c6b5a4938271605f4e3d2c1b0a99887766ffee";

    #[test]
    fn the_two_forms_of_host_local_are_known() {
        let modern = format!("{ID}\r\neth0");
        assert_eq!(
            content(modern.as_bytes()),
            Content::Modern {
                id: ID,
                ifname: "eth0"
            }
        );
        assert_eq!(content(ID.as_bytes()), Content::Legacy { id: ID });
        assert_eq!(content(format!("{ID}\n").as_bytes()), Content::Legacy { id: ID });
        assert_eq!(content(b""), Content::Empty);
        let nerdctl = format!("k8s.io-{ID}\r\neth0");
        assert!(matches!(content(nerdctl.as_bytes()), Content::Modern { id, .. } if bare_id(id) == ID));
    }

    #[test]
    fn every_other_content_is_somebody_elses() {
        let long_name = format!("{ID}\r\nan-interface-name-too-long");
        let line_feed = format!("{ID}\neth0");
        let three = format!("{ID}\r\neth0\r\nnet1");
        let upper = ID.to_uppercase();
        let more = format!("{ID}0");
        let foreign: [&[u8]; 13] = [
            b"reserved for the printer, ask Joe",
            b"3f9f8f1c2e6a",
            b"b2f6f0ce-6f3b-4f1d-9a55-0d6f6f1a2b3c\r\neth0",
            b"dummy\r\neth0",
            b"\n",
            b"\r\neth0",
            b"\xff\xfe",
            long_name.as_bytes(),
            line_feed.as_bytes(),
            three.as_bytes(),
            upper.as_bytes(),
            more.as_bytes(),
            "ä-äöü".as_bytes(),
        ];
        for bytes in foreign {
            assert!(
                matches!(content(bytes), Content::Foreign(_)),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn only_the_canonical_spelling_of_an_address_is_host_locals() {
        for text in ["10.88.0.9", "fd00:10:88::9", "::1"] {
            assert_eq!(
                name(text.as_bytes()),
                Name::Address(text.parse().unwrap()),
                "{text}"
            );
        }
        let foreign: [&[u8]; 11] = [
            b"fd00:10:88:0::9",
            b"FD00::9",
            b"fd00:0010::9",
            b"::ffff:10.88.0.9",
            b"10.88.0.09",
            b"10.88.0.9\n",
            b"10.88.0.9.bak",
            b"..",
            b"fe80::1%eth0",
            b"\xff",
            b"notes",
        ];
        for bytes in foreign {
            assert!(
                matches!(name(bytes), Name::Foreign(_)),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn the_bookkeeping_of_host_local_is_no_reservation() {
        for text in [
            "lock",
            "last_reserved_ip",
            "last_reserved_ip.0",
            "last_reserved_ip.1",
        ] {
            assert_eq!(name(text.as_bytes()), Name::Bookkeeping);
        }
        assert!(matches!(name(b"lock.bak"), Name::Foreign(_)));
    }
}
