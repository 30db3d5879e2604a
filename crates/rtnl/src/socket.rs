//! A netlink socket that asks and waits for the whole answer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::Socket;
use netlink_sys::constants::NETLINK_ROUTE;
use rustix::io::Errno;

use crate::error::Error;

/// The kernel writes dumps in pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;
/// How often a dump is asked again when the list changed meanwhile.
const TRIES: usize = 8;

/// A socket in the network namespace that its maker was in. It stays there.
pub(crate) struct Asker {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Asker {
    /// A socket in the network namespace of the calling thread.
    pub(crate) fn here() -> Result<Self, Error> {
        // Bound by the kernel at the first send, which goes to the kernel unless told otherwise (netlink(7)).
        let socket = Socket::new(NETLINK_ROUTE).map_err(Error::socket("open a socket"))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Every link.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let mut ask = LinkMessage::default();
        // Counters are half of a link's message, and nobody reads them here.
        ask.attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump(
            "list the links",
            RouteNetlinkMessage::GetLink(ask),
            |message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            },
        )
    }

    /// Every address, of both families.
    pub(crate) fn addresses(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let ask = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list the addresses", ask, |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
    }

    /// The id that this socket's namespace gives to another one; none if it gave it none, or if the kernel has no
    /// such ids (before Linux 4.0).
    pub(crate) fn nsid_of(&mut self, netns: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
        const WHAT: &str = "ask for a namespace id";
        let mut ask = NsidMessage::default();
        ask.attributes.push(NsidAttribute::Fd(
            u32::try_from(netns.as_raw_fd()).unwrap_or(u32::MAX),
        ));
        self.send(WHAT, RouteNetlinkMessage::GetNsId(ask), NLM_F_REQUEST)?;
        let mut id = None;
        self.receive(WHAT, |message| match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) => {
                id = answer.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                });
                Ok(Next::Done)
            }
            NetlinkPayload::Error(error) => match -error.raw_code() {
                code if code == Errno::OPNOTSUPP.raw_os_error() => Ok(Next::Done),
                code => Err(refused(WHAT, code)),
            },
            _ => Ok(Next::More),
        })?;
        Ok(id)
    }

    /// Asks for a list until it comes whole. The kernel marks a list that changed under its hands.
    fn dump<T>(
        &mut self,
        what: &'static str,
        ask: RouteNetlinkMessage,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..TRIES {
            let mut found = Vec::new();
            let mut restless = false;
            self.send(what, ask.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            self.receive(what, |message| {
                restless |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.extend(pick(inner)),
                    NetlinkPayload::Done(done) if done.code < 0 => return Err(refused(what, -done.code)),
                    NetlinkPayload::Done(_) => return Ok(Next::Done),
                    NetlinkPayload::Error(error) => return Err(refused(what, -error.raw_code())),
                    _ => {}
                }
                Ok(Next::More)
            })?;
            if !restless {
                return Ok(found);
            }
        }
        Err(Error::Restless { what })
    }

    fn send(&mut self, what: &'static str, ask: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(ask);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(Error::socket(what))?;
        Ok(())
    }

    /// Hands each message of the answer to `take` until it says that it is done.
    fn receive(
        &mut self,
        what: &'static str,
        mut take: impl FnMut(NetlinkMessage<RouteNetlinkMessage>) -> Result<Next, Error>,
    ) -> Result<(), Error> {
        loop {
            self.buffer.clear();
            self.socket
                .recv(&mut self.buffer, 0)
                .map_err(Error::socket(what))?;
            let mut rest = &self.buffer[..];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|e| Error::Answer {
                        what,
                        reason: e.to_string(),
                    })?;
                // Messages are padded to four bytes.
                let length = (message.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                if let Next::Done = take(message)? {
                    return Ok(());
                }
            }
        }
    }
}

enum Next {
    More,
    Done,
}

fn refused(what: &str, code: i32) -> Error {
    Error::Refused {
        what: what.to_owned(),
        source: io::Error::from_raw_os_error(code),
    }
}
