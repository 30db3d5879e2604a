//! kubelet's own arguments, also where kubelet is a part of another program.
//!
//! | distribution | kubelet is | its arguments |
//! |---|---|---|
//! | kubeadm, k0s, RKE2 | a process of its own | on its command line; k0s gives `--root-dir` |
//! | MicroK8s | a part of `kubelite` | in the file of `--kubelet-args-file`, with variables of the snap |
//! | k3s | a part of `k3s` | handed on by `--kubelet-arg`, which k3s wipes from its command line, or by `kubelet-arg` in its configuration |
//! | Kubernetes up to 1.18 | `hyperkube kubelet` | on its command line |

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nodemend_hostfs::Host;
use yaml_rust2::Yaml;

use crate::testimony::parse_yaml;

/// The most that is read of a file, in bytes.
const LIMIT: u64 = 4 << 20;

/// MicroK8s, and k3s, which has everything in one process.
const KUBELITE: &str = "kubelite";
const K3S: [&str; 3] = ["k3s", "k3s-server", "k3s-agent"];
/// Of old releases, where every component was one binary: its first argument tells which.
const HYPERKUBE: &str = "hyperkube";
/// Where k3s keeps its configuration and its files (`pkg/cli/cmds/root.go`, `pkg/datadir`).
const K3S_CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const K3S_DATA: &str = "/var/lib/rancher/k3s";

/// True if a process of that name may be kubelet, or hold it.
pub(crate) fn may_be_kubelet(comm: &str) -> bool {
    comm == "kubelet" || comm == KUBELITE || comm == HYPERKUBE || K3S.contains(&comm)
}

/// True if k3s holds it, whose arguments nobody can see.
pub(crate) fn hides_arguments(comm: &str) -> bool {
    K3S.contains(&comm)
}

/// The arguments of the kubelet in a process, the name of the program first. None if there is none in it: the process has
/// ended, or is something else of the same name.
///
/// # Errors
/// If a file that holds some of them cannot be read.
pub(crate) fn arguments(host: &Host, pid: u32, comm: &str) -> Result<Option<Vec<OsString>>, String> {
    let words = nodemend_procns::cmdline(host, pid).map_err(|error| error.to_string())?;
    let environment = || {
        let path = format!("/proc/{pid}/environ");
        host.read(Path::new(&path), LIMIT)
            .map_err(|error| error.to_string())
    };
    complete(host, comm, words, &environment)
}

fn complete(
    host: &Host,
    comm: &str,
    mut words: Vec<OsString>,
    environment: &dyn Fn() -> Result<Vec<u8>, String>,
) -> Result<Option<Vec<OsString>>, String> {
    // k3s writes its title over its first word: `/usr/local/bin/k3s server`.
    let command = words
        .iter()
        .flat_map(|word| word.as_bytes().split(|&byte| byte == b' '))
        .nth(1);
    let is_kubelet = match comm {
        HYPERKUBE => command == Some(b"kubelet"),
        "k3s" => matches!(command, Some(b"server" | b"agent")),
        _ => !words.is_empty(),
    };
    if !is_kubelet {
        return Ok(None);
    }
    if comm == KUBELITE {
        if let Some(file) = flag(&words, "kubelet-args-file") {
            let text = read(host, Path::new(&file))?;
            words.extend(from_file(&text, &environment()?));
        }
    } else if K3S.contains(&comm) {
        words.extend(of_k3s(host, &words)?);
    }
    Ok(Some(words))
}

fn read(host: &Host, file: &Path) -> Result<Vec<u8>, String> {
    host.read(file, LIMIT).map_err(|error| error.to_string())
}

/// The value of a flag, as `pflag` takes it: with a space or with `=`, and the last one counts. Flags that k3s hands on count
/// as kubelet's own.
pub(crate) fn flag(words: &[OsString], name: &str) -> Option<OsString> {
    let mut found = None;
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(mut rest) = word.as_bytes().strip_prefix(b"--") else {
            continue;
        };
        let handed_on = match rest {
            b"kubelet-arg" => words.next().map(|word| word.as_bytes()),
            rest => rest.strip_prefix(b"kubelet-arg="),
        };
        rest = handed_on.unwrap_or(rest);
        let value = match rest.strip_prefix(name.as_bytes()) {
            Some(b"") if handed_on.is_none() => words.next().map(|word| word.as_bytes()),
            Some(value) => value.strip_prefix(b"="),
            None => None,
        };
        found = value.map(|value| OsStr::from_bytes(value).to_owned()).or(found);
    }
    found
}

/// The words of a file of arguments, as kubelite reads it: without comments and quotes, with the variables of its environment.
fn from_file(text: &[u8], environment: &[u8]) -> Vec<OsString> {
    let variable = |name: &[u8]| {
        let mut entries = environment.split(|&byte| byte == 0);
        entries
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
            .unwrap_or_default()
    };
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let words = lines.flat_map(|line| line.split(|&byte| byte == b' '));
    words
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(expanded(word, &variable)))
        .collect()
}

/// `$NAME` and `${NAME}` (Go's `os.ExpandEnv`).
fn expanded<'e>(word: &[u8], variable: &dyn Fn(&[u8]) -> &'e [u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'"' | b'\'' => {}
            b'$' => {
                let (name, tail) = variable_name(tail);
                result.extend_from_slice(variable(name));
                rest = tail;
            }
            other => result.push(other),
        }
    }
    result
}

fn variable_name(text: &[u8]) -> (&[u8], &[u8]) {
    if let Some(braced) = text.strip_prefix(b"{")
        && let Some(end) = braced.iter().position(|&byte| byte == b'}')
    {
        let (name, tail) = braced.split_at(end);
        return (name, tail.get(1..).unwrap_or_default());
    }
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = text.iter().position(|byte| !is_name(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// What k3s tells its kubelet: where its own files are, and what its configuration hands on. What stands later counts.
fn of_k3s(host: &Host, words: &[OsString]) -> Result<Vec<OsString>, String> {
    let mut data = flag(words, "data-dir").map_or_else(|| K3S_DATA.into(), PathBuf::from);
    let mut handed_on = Vec::new();
    for file in k3s_files(host)? {
        let said = |reason: String| format!("{}: {reason}", file.display());
        let document = parse_yaml(&read(host, &file)?).map_err(said)?;
        if let Some(dir) = document["data-dir"].as_str() {
            data = dir.into();
        }
        // With a `+`, k3s adds to what the files before have.
        if let Some(values) = values(&document["kubelet-arg"]) {
            handed_on = values;
        }
        handed_on.extend(values(&document["kubelet-arg+"]).unwrap_or_default());
    }
    let own = |flag: &str, file: &str| {
        let mut word = OsString::from(format!("--{flag}="));
        word.push(data.join("agent").join(file));
        word
    };
    let own = [
        own("pod-manifest-path", "pod-manifests"),
        own("kubeconfig", "kubelet.kubeconfig"),
    ];
    // What is on the command line wins over the files, and so it is said again.
    let mut said = words.iter().skip(1);
    let mut again = Vec::new();
    while let Some(word) = said.next() {
        if word == "--kubelet-arg" {
            again.extend([word.clone()].into_iter().chain(said.next().cloned()));
        } else if word.as_bytes().starts_with(b"--kubelet-arg=") {
            again.push(word.clone());
        }
    }
    let handed_on = handed_on
        .into_iter()
        .map(|value| format!("--kubelet-arg={value}").into());
    Ok(own.into_iter().chain(handed_on).chain(again).collect())
}

fn k3s_files(host: &Host) -> Result<Vec<PathBuf>, String> {
    let first = PathBuf::from(K3S_CONFIG);
    let dir = PathBuf::from(format!("{K3S_CONFIG}.d"));
    let names = match host.list(&dir) {
        Ok(names) => names,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.to_string()),
    };
    let yaml = |name: &OsString| {
        let name = name.as_bytes();
        name.ends_with(b".yaml") || name.ends_with(b".yml")
    };
    let more = names.into_iter().filter(yaml).map(|name| dir.join(name));
    let is_there = host.open(&first).is_ok();
    Ok(is_there.then_some(first).into_iter().chain(more).collect())
}

/// k3s takes one value or a list.
fn values(value: &Yaml) -> Option<Vec<String>> {
    if let Some(one) = value.as_str() {
        return Some(vec![one.to_owned()]);
    }
    let all = value.as_vec()?.iter().filter_map(Yaml::as_str);
    Some(all.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::at(dir.path());
        (dir, host)
    }

    const SNAP: &[u8] =
        b"PATH=/bin\0SNAP_COMMON=/var/snap/microk8s/common\0SNAP_DATA=/var/snap/microk8s/9072\0";
    const ARGS: &str = "--resolv-conf=/run/systemd/resolve/resolv.conf\n--kubeconfig=${SNAP_DATA}/credentials/kubelet.config\n\
        # --root-dir=/commented\n--root-dir=${SNAP_COMMON}/var/lib/kubelet\n--eviction-hard=\"memory.available<100Mi\"\n";

    fn root(files: &[(&str, &str)], comm: &str, line: &str) -> Option<OsString> {
        let (_dir, host) = host(files);
        let words = complete(&host, comm, words(line), &|| Ok(SNAP.to_vec())).unwrap();
        flag(&words.expect("it is a kubelet"), "root-dir")
    }

    #[test]
    fn the_root_of_each_distribution_is_found() {
        let config = "write-kubeconfig-mode: '0644'\nkubelet-arg:\n- max-pods=50\n- root-dir=/data/kubelet\n";
        let one = "kubelet-arg: root-dir=/one\n";
        let (main, drop_in) = (
            "etc/rancher/k3s/config.yaml",
            "etc/rancher/k3s/config.yaml.d/50-a.yaml",
        );
        let kubelite = "/snap/microk8s/9072/kubelite --kubelet-args-file=/var/snap/microk8s/9072/args/kubelet \
                        --start-control-plane=true";
        let microk8s = [("var/snap/microk8s/9072/args/kubelet", ARGS)];
        let rke2 = "kubelet --volume-plugin-dir=/var/lib/kubelet/volumeplugins --config-dir=/var/lib/rancher/rke2/agent/etc/kubelet.conf.d";
        for (what, files, comm, line, expected) in [
            (
                "kubeadm",
                &[][..],
                "kubelet",
                "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml",
                None,
            ),
            (
                "k0s",
                &[],
                "kubelet",
                "/var/lib/k0s/bin/kubelet --root-dir=/var/lib/k0s/kubelet --v=1",
                Some("/var/lib/k0s/kubelet"),
            ),
            ("rke2", &[], "kubelet", rke2, None),
            (
                "rke2, told",
                &[],
                "kubelet",
                "kubelet --root-dir=/data --v=0",
                Some("/data"),
            ),
            (
                "microk8s",
                &microk8s,
                "kubelite",
                kubelite,
                Some("/var/snap/microk8s/common/var/lib/kubelet"),
            ),
            (
                "hyperkube",
                &[],
                "hyperkube",
                "/hyperkube kubelet --root-dir /data",
                Some("/data"),
            ),
            ("k3s", &[], "k3s-server", "/usr/local/bin/k3s server", None),
            (
                "k3s, by its file",
                &[(main, config)],
                "k3s-server",
                "/usr/local/bin/k3s server",
                Some("/data/kubelet"),
            ),
            (
                "k3s, one",
                &[(main, one)],
                "k3s-agent",
                "/usr/local/bin/k3s agent",
                Some("/one"),
            ),
            (
                "k3s, drop-in",
                &[(main, config), (drop_in, one)],
                "k3s",
                "k3s agent",
                Some("/one"),
            ),
            (
                "k3s, told",
                &[(main, config)],
                "k3s",
                "k3s server --kubelet-arg root-dir=/told --debug",
                Some("/told"),
            ),
            (
                "k3s, told with =",
                &[(main, config)],
                "k3s",
                "k3s server --kubelet-arg=root-dir=/told",
                Some("/told"),
            ),
        ] {
            assert_eq!(root(files, comm, line), expected.map(OsString::from), "{what}");
        }
    }

    #[test]
    fn k3s_keeps_static_pods_and_credentials_in_its_own_directory() {
        let (_dir, host) = host(&[("etc/rancher/k3s/config.yaml", "data-dir: /data/k3s\n")]);
        let title = vec![OsString::from("/usr/local/bin/k3s server")];
        let words = complete(&host, "k3s", title, &|| Ok(Vec::new()))
            .unwrap()
            .unwrap();
        assert_eq!(
            flag(&words, "pod-manifest-path").unwrap(),
            "/data/k3s/agent/pod-manifests"
        );
        assert_eq!(
            flag(&words, "kubeconfig").unwrap(),
            "/data/k3s/agent/kubelet.kubeconfig"
        );
    }

    #[test]
    fn other_programs_of_these_names_are_no_kubelet() {
        let (_dir, host) = host(&[]);
        for (comm, line) in [
            ("k3s", "/usr/local/bin/k3s kubectl get pods"),
            ("hyperkube", "/hyperkube proxy"),
        ] {
            assert_eq!(
                complete(&host, comm, words(line), &|| Ok(Vec::new())),
                Ok(None),
                "{line}"
            );
        }
        assert_eq!(
            complete(&host, "kubelet", Vec::new(), &|| Ok(Vec::new())),
            Ok(None),
            "a zombie"
        );
        assert!(
            ["kubelet", "kubelite", "k3s-agent"]
                .iter()
                .all(|comm| may_be_kubelet(comm))
        );
        assert!(
            !may_be_kubelet("rke2") && !may_be_kubelet("k0s"),
            "they start a kubelet"
        );
    }

    #[test]
    fn a_file_of_arguments_that_cannot_be_read_is_an_error_and_not_the_default() {
        let (_dir, host) = host(&[("etc/rancher/k3s/config.yaml", "kubelet-arg: [")]);
        let lost = complete(
            &host,
            "kubelite",
            words("kubelite --kubelet-args-file=/nowhere"),
            &|| Ok(Vec::new()),
        );
        assert!(lost.unwrap_err().contains("/nowhere"));
        let torn = complete(&host, "k3s", words("k3s server"), &|| Ok(Vec::new()));
        assert!(torn.unwrap_err().starts_with("/etc/rancher/k3s/config.yaml: "));
    }

    #[test]
    fn a_flag_is_taken_from_either_spelling_and_the_last_one_counts() {
        for (line, expected) in [
            ("kubelet --root-dir /data --v=2", Some("/data")),
            ("kubelet --root-dir=/data", Some("/data")),
            ("kubelet --root-dir=/a --root-dir /b", Some("/b")),
            ("kubelet --config=/etc/k.yaml --root-directory=/a", None),
            ("kubelet -- --root-dir=/a", None),
            ("kubelet --root-dir", None),
        ] {
            assert_eq!(
                flag(&words(line), "root-dir"),
                expected.map(OsString::from),
                "t18: {line}"
            );
        }
    }
}
