//! The names that CNI allows. Anything else never came from libcni, and could lead out of a directory.

/// The longest name that a file can have on Linux, in bytes.
const FILE_NAME_MAX: usize = 255;
/// `IFNAMSIZ` without the final zero.
const INTERFACE_NAME_MAX: usize = 15;

/// True for a network name or container id as libcni accepts them (pkg/utils `ValidateNetworkName`,
/// `ValidateContainerID`): a letter or digit, then letters, digits, `_`, `.` and `-`.
pub(crate) fn is_id(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.len() <= FILE_NAME_MAX
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(rest)
}

/// True for an interface name as libcni and the kernel accept it (pkg/utils `ValidateInterfaceName`).
pub(crate) fn is_interface(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.len() <= INTERFACE_NAME_MAX
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

/// True for a plugin type that names a file in a plugin directory, and nothing beyond it.
pub(crate) fn is_plugin(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= FILE_NAME_MAX && !text.contains(['/', '\0'])
}

/// The text in one line, cut to `limit` characters: for messages about what others wrote.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limit)
        .collect();
    if text.trim().chars().nth(limit).is_some() {
        line + " …"
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_libcni() {
        for good in [
            "a",
            "default-0123abcd",
            "k8s_pod.network",
            "9a3c4d2e-8b1f-4c55-9d7e-0123456789ab",
        ] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "../a",
            "a b",
            "a\n",
            "a\0",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_are_those_of_the_kernel() {
        for good in ["eth0", "net1", "veth7817d4e7", "a.b"] {
            assert!(is_interface(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "abcdefghijklmnop"] {
            assert!(!is_interface(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_plugin_type_never_leaves_its_directory() {
        for bad in ["", ".", "..", "/bin/sh", "../bridge", "a\0"] {
            assert!(!is_plugin(bad), "{bad:?}");
        }
        assert!(is_plugin("bridge") && is_plugin("host-local") && is_plugin("..."));
    }

    #[test]
    fn what_others_wrote_stays_in_one_line() {
        assert_eq!(printable(" a\x1b[31m\nb ", 99), "a [31m b");
        assert_eq!(printable("abcdef", 3), "abc …");
    }
}
