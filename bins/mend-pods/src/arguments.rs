//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nodemend_cli::{EXIT_CODES, Flags};

use crate::restore::Restore;

/// Find pod directories that no pod owns any more, prove each one, and repair them with --apply.
///
/// Without --apply nothing changes: the plan is printed, with who was asked about each directory, what would be lost and
/// what would happen. By default the repair removes only what keeps kubelet from removing the directory itself; with
/// --purge the whole directory goes: it is unmounted, never by force and never lazily, and what may be the only copy of
/// something is moved to a quarantine, from which `mend-pods restore` brings it back.
#[derive(Debug, Parser)]
#[command(
    name = "mend-pods",
    version,
    after_help = EXIT_CODES,
    args_conflicts_with_subcommands = true,
    // A directory is made long before its pod runs, so it must be older here than elsewhere.
    mut_arg("grace", |grace| grace.default_value("15m"))
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) flags: Flags,

    /// kubelet's root. By default what the running kubelet was told, else /var/lib/kubelet
    #[arg(long, value_name = "DIR")]
    pub(crate) kubelet_root: Option<PathBuf>,

    /// Say that kubelet is down, so that its list is not needed. Refused while a kubelet runs; static pods stay
    #[arg(long)]
    pub(crate) kubelet_down: bool,

    /// Repair only what this log of kubelet names as orphaned; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) from_log: Option<PathBuf>,

    /// Remove only what keeps kubelet from finishing by itself: the default
    #[arg(long, conflicts_with = "purge")]
    pub(crate) unblock: bool,

    /// Remove the whole directory, with its mounts
    #[arg(long)]
    pub(crate) purge: bool,

    /// Lose what is in emptyDir volumes: it ends with its pod by contract, and has no other copy
    #[arg(long, requires = "purge")]
    pub(crate) accept_ephemeral: bool,

    /// Put what is in emptyDir volumes into a tar in DIR before it is removed
    #[arg(long, value_name = "DIR", requires = "purge")]
    pub(crate) archive: Option<PathBuf>,

    /// Where what may be the only copy is moved to: on the mount of kubelet's root, and not in pods/
    #[arg(long, value_name = "DIR", requires = "purge")]
    pub(crate) quarantine_dir: Option<PathBuf>,

    /// A bearer token for kubelet's port, of somebody who may get nodes/proxy
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_token_file: Option<PathBuf>,

    /// A client certificate for kubelet's port. By default those that lie on the node
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_client_cert: Option<PathBuf>,

    /// The key of --kubelet-client-cert. By default in the same file
    #[arg(long, value_name = "FILE", requires = "kubelet_client_cert")]
    pub(crate) kubelet_client_key: Option<PathBuf>,

    /// How long kubelet must have run before its list counts
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    pub(crate) kubelet_settled: Duration,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put back what a repair moved away or copied. Without NAME, list what can be put back
    Restore(Restore),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_grace_is_fifteen_minutes_unless_told_otherwise() {
        let of = |words: &[&str]| Arguments::try_parse_from(words).unwrap().flags.grace.as_secs();
        assert_eq!(of(&["mend-pods"]), 900);
        assert_eq!(of(&["mend-pods", "--grace", "0s"]), 0);
    }

    #[test]
    fn what_belongs_to_a_purge_needs_one() {
        for words in [
            &["mend-pods", "--accept-ephemeral"][..],
            &["mend-pods", "--archive", "/a"],
            &["mend-pods", "--unblock", "--purge"],
            &["mend-pods", "--kubelet-client-key", "/k"],
        ] {
            assert!(Arguments::try_parse_from(words).is_err(), "{words:?}");
        }
    }
}
