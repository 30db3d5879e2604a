//! What the removal of a volume would lose. Pure.
//!
//! The names are the constants of `pkg/volume/*` in kubernetes/kubernetes.

use crate::volume::{Class, Content, Part};

/// The text of [`Content::Other`] for an empty file: what kubelet makes to bind a file onto it.
pub(crate) const EMPTY_FILE: &str = "an empty file";

/// The plugin of a subpath, which does not tell of which volume it is.
pub(crate) const SUBPATH: &str = "subpath";

/// What is mounted on a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounted {
    /// Nothing.
    No,
    /// A file system in memory: it ends with its last mount.
    Memory {
        /// True if it is mounted outside of the pod directories too.
        elsewhere: bool,
    },
    /// Anything else: the data is kept where it comes from.
    Other,
}

/// How long a plugin's data is meant to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// It can be made again from the API server.
    Nothing,
    /// As long as the pod.
    Ephemeral,
    /// Longer than the pod. Also what nobody knows here: flexvolume drivers, plugins to come.
    Durable,
}

fn keeps(plugin: &str) -> Keeps {
    match plugin {
        "kubernetes.io/secret"
        | "kubernetes.io/projected"
        | "kubernetes.io/downward-api"
        | "kubernetes.io/configmap" => Keeps::Nothing,
        "kubernetes.io/empty-dir" | "kubernetes.io/git-repo" => Keeps::Ephemeral,
        _ => Keeps::Durable,
    }
}

/// What the removal of a volume would lose. `plugin` is unescaped; `stack` is what is mounted on it, one on the other.
pub(crate) fn classify(part: Part, plugin: &str, stack: &[Mounted], content: &Content) -> Class {
    let classes = stack.iter().map(|mounted| one(part, plugin, *mounted, content));
    let worst = classes.reduce(|one, other| match (one, other) {
        // To unmount it is to lose it, whatever else is mounted there.
        (Class::Ephemeral, _) | (_, Class::Ephemeral) => Class::Ephemeral,
        (one, other) => one.max(other),
    });
    worst.unwrap_or_else(|| one(part, plugin, Mounted::No, content))
}

fn one(part: Part, plugin: &str, mounted: Mounted, content: &Content) -> Class {
    match (mounted, part) {
        (Mounted::Memory { elsewhere }, Part::Volume | Part::Subpath) => match keeps(plugin) {
            Keeps::Nothing => Class::NothingLost,
            Keeps::Durable if elsewhere => Class::DurableElsewhere,
            Keeps::Ephemeral | Keeps::Durable => Class::Ephemeral,
        },
        (Mounted::Memory { .. } | Mounted::Other, _) => Class::DurableElsewhere,
        (Mounted::No, Part::Volume | Part::Subpath) => unmounted(plugin, content),
        (Mounted::No, Part::Device) => device(content),
        (Mounted::No, Part::PluginData) => plugin_data(content),
    }
}

fn unmounted(plugin: &str, content: &Content) -> Class {
    match content {
        Content::Empty => Class::NothingLost,
        // The table did not know of it: it was mounted just now.
        Content::Mounted => Class::DurableElsewhere,
        Content::Other(what) if what == EMPTY_FILE => Class::NothingLost,
        Content::Files { .. } | Content::Other(_) | Content::Unread(_) => match keeps(plugin) {
            Keeps::Nothing => Class::NothingLost,
            Keeps::Ephemeral => Class::Ephemeral,
            Keeps::Durable => Class::MaybeOnlyCopy,
        },
    }
}

/// A symlink to a device, or a device file: the data is on the device.
fn device(content: &Content) -> Class {
    match content {
        Content::Empty => Class::NothingLost,
        Content::Other(what) if what == EMPTY_FILE => Class::NothingLost,
        Content::Mounted | Content::Other(_) => Class::DurableElsewhere,
        Content::Files { .. } | Content::Unread(_) => Class::MaybeOnlyCopy,
    }
}

/// Nothing but an empty file `ready` is known to be there (`pkg/volume/util/util.go`, `readyFileName`).
fn plugin_data(content: &Content) -> Class {
    match content {
        Content::Empty => Class::NothingLost,
        Content::Files {
            bytes: 0,
            more: false,
            ..
        } => Class::NothingLost,
        Content::Other(what) if what == EMPTY_FILE => Class::NothingLost,
        Content::Mounted => Class::DurableElsewhere,
        Content::Files { .. } | Content::Other(_) | Content::Unread(_) => Class::MaybeOnlyCopy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Mounted = Mounted::Memory { elsewhere: false };
    const SHARED: Mounted = Mounted::Memory { elsewhere: true };

    fn files() -> Content {
        Content::Files {
            entries: 3,
            bytes: 7,
            newest: 0,
            more: false,
        }
    }

    fn all(part: Part, plugin: &str) -> [Class; 6] {
        let unread = Content::Unread("EIO".into());
        [
            classify(part, plugin, &[], &Content::Empty),
            classify(part, plugin, &[], &files()),
            classify(part, plugin, &[], &unread),
            classify(part, plugin, &[ALONE], &Content::Mounted),
            classify(part, plugin, &[SHARED], &Content::Mounted),
            classify(part, plugin, &[Mounted::Other], &Content::Mounted),
        ]
    }

    #[test]
    fn every_plugin_of_the_table_has_its_class() {
        use Class::{DurableElsewhere as Durable, Ephemeral, MaybeOnlyCopy as Only, NothingLost as Nothing};
        // Empty, with files, unread, tmpfs of its own, tmpfs mounted elsewhere too, any other mount.
        let nothing = [Nothing, Nothing, Nothing, Nothing, Nothing, Durable];
        let ephemeral = [Nothing, Ephemeral, Ephemeral, Ephemeral, Ephemeral, Durable];
        let durable = [Nothing, Only, Only, Ephemeral, Durable, Durable];
        for (names, expected) in [
            ("secret projected downward-api configmap", nothing),
            ("empty-dir git-repo", ephemeral),
            ("local-volume nfs cephfs azure-file glusterfs", durable),
            (
                "rbd iscsi fc aws-ebs gce-pd azure-disk cinder vsphere-volume portworx-volume",
                durable,
            ),
            ("csi host-path quobyte something-new", durable),
        ] {
            for name in names.split(' ') {
                let plugin = format!("kubernetes.io/{name}");
                assert_eq!(all(Part::Volume, &plugin), expected, "{plugin}");
            }
        }
        for plugin in [
            "ceph.rook.io/rook",
            "alicloud/nas",
            "",
            "secret",
            "kubernetes.io/../secret",
        ] {
            assert_eq!(all(Part::Volume, plugin), durable, "{plugin}");
        }
        assert_eq!(all(Part::Subpath, SUBPATH), durable);
    }

    #[test]
    fn t3_the_empty_file_under_a_file_subpath_loses_nothing() {
        let empty = Content::Other(EMPTY_FILE.into());
        assert_eq!(classify(Part::Subpath, SUBPATH, &[], &empty), Class::NothingLost);
        let link = Content::Other("a symlink to /etc".into());
        assert_eq!(classify(Part::Subpath, SUBPATH, &[], &link), Class::MaybeOnlyCopy);
    }

    #[test]
    fn t23_a_link_to_a_device_is_not_the_device() {
        let link = Content::Other("a symlink to /dev/loop3".into());
        assert_eq!(
            classify(Part::Device, "kubernetes.io/csi", &[], &link),
            Class::DurableElsewhere
        );
        assert_eq!(
            classify(Part::Device, "kubernetes.io/csi", &[], &files()),
            Class::MaybeOnlyCopy,
            "a file where a link belongs"
        );
    }

    #[test]
    fn plugin_data_without_a_byte_loses_nothing_and_with_one_may_be_a_copy() {
        let ready = Content::Files {
            entries: 1,
            bytes: 0,
            newest: 0,
            more: false,
        };
        let plugin = "kubernetes.io/empty-dir";
        assert_eq!(
            classify(Part::PluginData, plugin, &[], &ready),
            Class::NothingLost
        );
        assert_eq!(
            classify(Part::PluginData, plugin, &[], &files()),
            Class::MaybeOnlyCopy
        );
    }

    #[test]
    fn t2_memory_in_a_stack_is_lost_whatever_else_is_in_it() {
        let csi = "kubernetes.io/csi";
        for stack in [[ALONE, Mounted::Other], [Mounted::Other, ALONE]] {
            assert_eq!(
                classify(Part::Volume, csi, &stack, &Content::Mounted),
                Class::Ephemeral
            );
        }
        let secret = "kubernetes.io/secret";
        let class = classify(Part::Volume, secret, &[ALONE, Mounted::Other], &Content::Mounted);
        assert_eq!(class, Class::DurableElsewhere);
    }
}
