//! Changing links, over rtnetlink.

use std::io;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, new_connection};

use crate::error::Error;

/// The links of the namespace in which it was made, to change them.
///
/// Nothing here knows whether a link may go: that is the caller's proof.
#[derive(Clone, Debug)]
pub struct Links {
    handle: Handle,
}

impl Links {
    /// Opens a connection, which runs as a task of the current tokio runtime until this is dropped.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = new_connection().map_err(Error::socket("open a socket"))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Puts a link into a group (`IFLA_GROUP`).
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn set_group(&self, ifindex: u32, group: u32) -> Result<(), Error> {
        let message = LinkMessageBuilder::<LinkUnspec>::default()
            .index(ifindex)
            .append_extra_attribute(LinkAttribute::Group(group))
            .build();
        let done = self.handle.link().set(message).execute().await;
        done.map_err(|e| refused(format!("put link {ifindex} into group {group}"), e))
    }

    /// Removes one link; the other end of a veth pair goes with it. Waits for an RCU grace period.
    ///
    /// # Errors
    /// What the kernel says; `ENODEV` if it is gone already.
    pub async fn delete(&self, ifindex: u32) -> Result<(), Error> {
        let done = self.handle.link().del(ifindex).execute().await;
        done.map_err(|e| refused(format!("remove link {ifindex}"), e))
    }

    /// Removes every link of a group, with one grace period for all of them. The group must not be 0: every link
    /// that nobody grouped is in that one.
    ///
    /// # Errors
    /// What the kernel says; `EINVAL` or `EOPNOTSUPP` if it is too old to know this request.
    pub async fn delete_group(&self, group: u32) -> Result<(), Error> {
        let what = format!("remove the links of group {group}");
        if group == 0 {
            return Err(Error::Refused {
                what,
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        let done = self.handle.link().del_with_message(message).execute().await;
        done.map_err(|e| refused(what, e))
    }
}

fn refused(what: String, error: rtnetlink::Error) -> Error {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    };
    Error::Refused { what, source }
}
