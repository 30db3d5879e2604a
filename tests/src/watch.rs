//! Whether pods noticed: a ping that runs while something is repaired.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::{LabError, Result};
use crate::node::Node;
use crate::sandbox::{Sandbox, random_uuid};

/// A ping from one pod to an address, five times a second, until [`Watch::finish`].
pub struct Watch<'n> {
    node: &'n Node,
    pid: u32,
    log: String,
}

/// What a [`Watch`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Packets sent.
    pub sent: u32,
    /// Packets answered.
    pub answered: u32,
}

impl Seen {
    /// Whether every packet was answered. The last one may still have been under way.
    pub fn nothing_lost(self) -> bool {
        self.answered > 0 && self.sent - self.answered <= 1
    }
}

impl Node {
    /// Begins to ping an address from a pod, and waits for the first answer.
    ///
    /// # Errors
    ///
    /// [`LabError::Timeout`] when there is none.
    pub fn watch(&self, from: &Sandbox, to: IpAddr) -> Result<Watch<'_>> {
        let log = format!("/run/lab/ping-{}", random_uuid()?);
        let net = from.netns.to_string_lossy();
        let pid = self.detach(
            &["--net", &net, "--log", &log],
            &["ping", "-n", "-i", "0.2", &to.to_string()],
        )?;
        self.await_that("answer to a ping", Duration::from_secs(10), &log, || {
            self.read(&log).is_ok_and(|said| said.contains("time="))
        })?;
        Ok(Watch { node: self, pid, log })
    }
}

impl Watch<'_> {
    /// Ends the ping; what it counted.
    ///
    /// # Errors
    ///
    /// When it was killed by somebody else.
    pub fn finish(self) -> Result<Seen> {
        self.node.signal("INT", &[self.pid])?;
        self.node
            .await_that("end of a ping", Duration::from_secs(10), &self.log, || {
                !self.node.is_alive(self.pid)
            })?;
        let said = self.node.read(&self.log)?;
        summary(&said).ok_or_else(|| LabError::Odd(format!("a ping ended without a summary: {said}")))
    }
}

/// `5 packets transmitted, 5 received, 0% packet loss, time 801ms`
fn summary(said: &str) -> Option<Seen> {
    let line = said.lines().find(|line| line.contains("packets transmitted"))?;
    let mut counts = line
        .split(", ")
        .filter_map(|part| part.split(' ').next()?.parse().ok());
    Some(Seen {
        sent: counts.next()?,
        answered: counts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_was_lost() {
        let seen = summary("x\n9 packets transmitted, 7 received, 22% packet loss, time 1ms\n").unwrap();
        assert_eq!(seen, Seen { sent: 9, answered: 7 });
        assert!(!seen.nothing_lost());
        assert_eq!(summary("ping: connect: Network is unreachable"), None);
    }
}
