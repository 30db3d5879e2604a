//! What people call a pod. Pure, but for one listing.

use std::collections::HashMap;
use std::ffi::OsString;

use crate::pod::PodName;
use crate::uid::Uid;

/// More than any hosts file that kubelet writes, in bytes.
pub(crate) const LARGEST: usize = 64 << 10;

/// The first line of a hosts file of a pod with a network of its own; in one of a pod in the host's network it goes on
/// (`pkg/kubelet/kubelet_pods.go`, `managedHostsHeader`).
const HEADER: &str = "# Kubernetes-managed hosts file.";
/// What comes behind is not the pod's own name (`hostsEntriesFromHostAliases`).
const ALIASES: &str = "# Entries added by HostAliases.";

/// The pods of the names in `/var/log/pods`: `<namespace>_<name>_<uid>` (`pkg/kubelet/kuberuntime/helpers.go`,
/// `BuildPodLogsDirectory`).
pub(crate) fn from_logs(names: Vec<OsString>) -> HashMap<Uid, PodName> {
    names.into_iter().filter_map(log_name).collect()
}

fn log_name(name: OsString) -> Option<(Uid, PodName)> {
    let name = name.into_string().ok()?;
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let good = parts.next().is_none() && is_name(namespace) && is_name(pod);
    let name = PodName {
        namespace: Some(namespace.to_owned()),
        name: pod.to_owned(),
        from: "/var/log/pods".to_owned(),
    };
    good.then_some(()).and(Some((uid.parse().ok()?, name)))
}

/// The pod's name by its hosts file: the last name in the last line that kubelet wrote for the pod itself. It is the pod's
/// `hostname`, which is its name unless the pod says otherwise, cut at 63 bytes.
pub(crate) fn from_hosts(file: &[u8]) -> Option<PodName> {
    let text = std::str::from_utf8(file).ok()?;
    let mut lines = text.lines();
    if lines.next()?.trim_end() != HEADER {
        return None;
    }
    let own = lines.take_while(|line| line.trim_end() != ALIASES);
    let last = own
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .last()?;
    let name = last.split_whitespace().skip(1).last()?;
    let of_all = name == "localhost" || name.starts_with("ip6-");
    (is_name(name) && !of_all).then(|| PodName {
        namespace: None,
        name: name.to_owned(),
        from: "etc-hosts".to_owned(),
    })
}

/// A DNS subdomain, as all these names are: nothing else gets into a report.
fn is_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

    #[test]
    fn the_directory_of_the_logs_tells_namespace_and_name() {
        let names = [
            format!("web_shop-0_{UID}"),
            "kube-system_etcd-n1_d41d8cd98f00b204e9800998ecf8427e".into(),
            "a_b".into(),
            format!("a_b_c_{UID}"),
            format!("\u{1b}[31m_b_{UID}"),
            format!("../x_b_{UID}"),
        ];
        let known = from_logs(names.map(OsString::from).into());
        assert_eq!(known.len(), 2);
        let name = &known[&UID.parse::<Uid>().unwrap()];
        assert_eq!(
            (name.namespace.as_deref(), name.name.as_str()),
            (Some("web"), "shop-0")
        );
    }

    const COMMON: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\nfe00::2\tip6-allrouters\n";

    #[test]
    fn the_hosts_file_of_a_pod_tells_its_name() {
        let name = |tail: &str| from_hosts(format!("{COMMON}{tail}").as_bytes()).map(|name| name.name);
        assert_eq!(name("10.0.0.7\tshop-0\n").as_deref(), Some("shop-0"));
        assert_eq!(
            name("10.0.0.7\tshop-0.shop.web.svc.cluster.local\tshop-0\n\n# Entries added by HostAliases.\n1.2.3.4\tx.y\n")
                .as_deref(),
            Some("shop-0")
        );
        assert_eq!(name(""), None, "the pod never had an address");
        assert_eq!(name("10.0.0.7\t\u{1b}[2J\n"), None);
    }

    #[test]
    fn the_hosts_file_of_a_pod_in_the_hosts_network_tells_nothing() {
        let text = "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n10.0.0.1 node-1\n";
        assert_eq!(from_hosts(text.as_bytes()), None);
        assert_eq!(from_hosts(b"\xff"), None);
        assert_eq!(from_hosts(b""), None);
    }
}
