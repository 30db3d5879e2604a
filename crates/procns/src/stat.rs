//! `/proc/PID/stat`, `/proc/PID/cgroup` and `/proc/PID/environ`, as proc(5) describes them.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::census::CniCall;

/// `PF_KTHREAD` of include/linux/sched.h.
const PF_KTHREAD: u64 = 0x0020_0000;
/// `PF_EXITING` of include/linux/sched.h: a task that is past the point of no return.
const PF_EXITING: u64 = 0x0000_0004;

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) comm: String,
    pub(crate) state: u8,
    pub(crate) is_kernel_thread: bool,
    pub(crate) is_exiting: bool,
    pub(crate) threads: u64,
    pub(crate) start_time: u64,
    pub(crate) parent: u32,
}

impl Stat {
    /// The name may hold blanks, parentheses and newlines: it ends at the last parenthesis.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        // Field 3, the state, is the first after the name.
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let flags: u64 = fields.nth(9 - 5)?.parse().ok()?;
        let threads = fields.nth(20 - 10)?.parse().ok()?;
        let start_time = fields.nth(22 - 21)?.parse().ok()?;
        Some(Self {
            comm,
            state,
            is_kernel_thread: flags & PF_KTHREAD != 0,
            is_exiting: flags & PF_EXITING != 0,
            threads,
            start_time,
            parent,
        })
    }

    /// A main thread that has ended. Other threads of the process may go on.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The container ids in the paths of `/proc/PID/cgroup`, each once, in order.
///
/// An id is 64 hex digits, alone (`/kubepods/…/<id>`), in the name of a systemd scope
/// (`cri-containerd-<id>.scope`, `crio-<id>.scope`, `crio-conmon-<id>.scope`, `docker-<id>.scope`), or in what a
/// runtime and a kubelet with different cgroup drivers make of it (`…slice:cri-containerd:<id>`).
pub(crate) fn container_ids(cgroup: &[u8]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for word in cgroup.split(|byte| b"/:-.\n".contains(byte)) {
        if word.len() == 64
            && word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && !ids.iter().any(|id| id.as_bytes() == word)
        {
            ids.push(String::from_utf8_lossy(word).into_owned());
        }
    }
    ids
}

/// The CNI call that an environment describes. Both `CNI_COMMAND` and `CNI_CONTAINERID` must be there.
pub(crate) fn cni_call(environ: &[u8]) -> Option<CniCall> {
    let (mut command, mut container_id, mut netns, mut ifname) = (None, None, PathBuf::new(), String::new());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for variable in environ.split(|&byte| byte == 0) {
        let Some(rest) = variable.strip_prefix(b"CNI_") else {
            continue;
        };
        if let Some(value) = rest.strip_prefix(b"COMMAND=") {
            command = Some(text(value));
        } else if let Some(value) = rest.strip_prefix(b"CONTAINERID=") {
            container_id = Some(text(value));
        } else if let Some(value) = rest.strip_prefix(b"NETNS=") {
            netns = PathBuf::from(std::ffi::OsStr::from_bytes(value));
        } else if let Some(value) = rest.strip_prefix(b"IFNAME=") {
            ifname = text(value);
        }
    }
    Some(CniCall {
        command: command?,
        container_id: container_id?,
        netns,
        ifname,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let line = b"77 (a) b (c\n) Z 1 77 77 0 -1 4228108 0 0 0 0 0 0 0 0 20 0 3 0 8123 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.state, stat.threads, stat.start_time),
            ("a) b (c\n", b'Z', 3, 8123)
        );
        assert!(stat.is_dead() && !stat.is_kernel_thread);
    }

    #[test]
    fn a_kernel_thread_is_known_by_its_flag() {
        let line = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0";
        assert!(Stat::parse(line).unwrap().is_kernel_thread);
    }

    #[test]
    fn container_ids_are_found_in_every_spelling_of_a_cgroup() {
        let id = |digit: &str| digit.repeat(64);
        for path in [
            format!("0::/kubepods/burstable/pod7f1d/{}", id("a")),
            format!(
                "0::/kubepods.slice/kubepods-pod7f1d.slice/cri-containerd-{}.scope",
                id("a")
            ),
            format!("0::/kubepods.slice/crio-{}.scope/container", id("a")),
            format!("0::/kubepods.slice/crio-conmon-{}.scope", id("a")),
            format!(
                "12:pids:/docker/{}\n11:cpu,cpuacct:/docker/{}\n",
                id("a"),
                id("a")
            ),
            format!("0::/system.slice/docker-{}.scope", id("a")),
            format!(
                "1:name=systemd:/kubepods-pod7f1d.slice:cri-containerd:{}\n",
                id("a")
            ),
        ] {
            assert_eq!(container_ids(path.as_bytes()), [id("a")], "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_id_is_none() {
        for path in [
            format!("0::/user.slice/{}", "a".repeat(63)),
            format!("0::/user.slice/{}", "a".repeat(65)),
            format!("0::/user.slice/{}", "g".repeat(64)),
            format!("0::/user.slice/{}", "A".repeat(64)),
        ] {
            assert!(container_ids(path.as_bytes()).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_cni_call_needs_a_command_and_a_container() {
        let call = cni_call(
            b"PATH=/bin\0CNI_COMMAND=ADD\0CNI_CONTAINERID=abc\0CNI_NETNS=/run/netns/x\0CNI_IFNAME=eth0\0",
        );
        let call = call.unwrap();
        assert_eq!(
            (
                call.command.as_str(),
                call.container_id.as_str(),
                call.ifname.as_str()
            ),
            ("ADD", "abc", "eth0")
        );
        assert_eq!(call.netns, PathBuf::from("/run/netns/x"));
        assert!(cni_call(b"CNI_COMMAND=VERSION\0").is_none());
        assert!(cni_call(b"XCNI_COMMAND=ADD\0CNI_CONTAINERID=abc\0").is_none());
    }
}
