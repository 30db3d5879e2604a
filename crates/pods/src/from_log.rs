//! The pods that kubelet's log names as orphans.
//!
//! The log is never needed: at its default level kubelet is silent about the most dangerous orphans, those with mounts, and
//! of many it names only the first. What a log names may long be gone, or live again. So it only ever narrows a plan.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::LazyLock;

use regex_lite::Regex;

use crate::uid::Uid;

/// What a log says of orphans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The pods that it names.
    pub uids: BTreeSet<Uid>,
    /// The most that it counts in one message, of which it names the first.
    pub counted: u64,
}

macro_rules! uid {
    () => {
        "(?P<uid>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32})"
    };
}

/// Every wording since 1.5, plain, quoted by klog and quoted again in JSON.
static ORPHANED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?i)\borphaned pod \\*""#,
        uid!(),
        r#"\\*" found, (?P<why>but .*)"#
    ))
    .ok()
});
/// The structured message at level 3; in JSON with a colon and a quoted key.
static MOUNTED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(concat!(r#""Orphaned pod found[^"]*"[", ]+podUID[": =]+"#, uid!())).ok());
static COUNT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"numErrs"?[=:] ?(\d+)|total of (\d+) errors similar"#).ok());

/// The pods that a log names. A path in a message is never looked at, only the UID.
///
/// # Errors
/// If the log cannot be read.
pub fn from_log(mut log: impl BufRead) -> std::io::Result<Named> {
    let mut named = Named::default();
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line)? > 0 {
        read(&String::from_utf8_lossy(&line), &mut named);
        line.clear();
    }
    Ok(named)
}

fn read(line: &str, named: &mut Named) {
    for pattern in [&ORPHANED, &MOUNTED]
        .into_iter()
        .filter_map(|pattern| pattern.as_ref())
    {
        let found = pattern
            .captures(line)
            .and_then(|found| found.name("uid")?.as_str().parse().ok());
        if let Some(uid) = found {
            named.uids.insert(uid);
            named.counted = named.counted.max(count(line));
        }
    }
}

fn count(line: &str) -> u64 {
    let found = COUNT.as_ref().and_then(|pattern| pattern.captures(line));
    let number = found.and_then(|found| found.get(1).or(found.get(2))?.as_str().parse().ok());
    number.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";
    const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn names(line: &str) -> (Vec<String>, u64) {
        let named = from_log(line.as_bytes()).unwrap();
        (
            named.uids.iter().map(ToString::to_string).collect(),
            named.counted,
        )
    }

    #[test]
    fn every_wording_of_every_era_names_its_pod() {
        assert!(ORPHANED.is_some() && MOUNTED.is_some() && COUNT.is_some());
        let lines = [
            // up to 1.5
            (
                r#"E0101 1:1 kubelet_volumes.go:99] Orphaned pod "<uid>" found, but error open x occured during reading volume dir from disk"#,
                1,
            ),
            // 1.6, 1.7
            (
                r#"E0101 kubelet_volumes.go:114] Orphaned pod "<uid>" found, but volume paths are still present on disk."#,
                1,
            ),
            // as 1.20.2 was seen to write it
            (
                r#"E1121 16:57:08.639540     195 kubelet_volumes.go:154] orphaned pod "<uid>" found, but volume paths are still present on disk : There were a total of 2 errors similar to this. Turn up verbosity to see them."#,
                2,
            ),
            // 1.8 to 1.19
            (
                r#"Orphaned pod "<uid>" found, but volume paths are still present on disk : There were a total of 3 errors similar to this. Turn up verbosity to see them."#,
                3,
            ),
            (
                r#"Orphaned pod "<uid>" found, but volume subpaths are still present on disk : There were a total of 12 errors similar to this. Turn up verbosity to see them."#,
                12,
            ),
            // 1.20.5 to 1.21
            (
                r#"orphaned pod "<uid>" found, but failed to rmdir() volume at path /var/lib/kubelet/pods/<uid>/volumes/kubernetes.io~csi/pvc-1: directory not empty : There were a total of 2 errors similar to this. Turn up verbosity to see them."#,
                2,
            ),
            (
                r#"orphaned pod "<uid>" found, but failed to rmdir() subpath at path /x: not a directory"#,
                1,
            ),
            // 1.22 and on
            (
                r#"E0101 kubelet_volumes.go:225] "There were many similar errors. Turn up verbosity to see them." err="orphaned pod \"<uid>\" found, but error not a directory occurred when trying to remove the volumes dir" numErrs=8549"#,
                8549,
            ),
            (
                r#"kubelet_volumes.go:263] "There were many similar errors. Turn up verbosity to see them." err="orphaned pod \"<uid>\" found, but error occurred when trying to remove the volumes dir: not a directory" numErrs=1"#,
                1,
            ),
            (
                r#""Orphan pod" err="orphaned pod \"<uid>\" found, but volumes are not cleaned up""#,
                1,
            ),
            // level 3
            (
                r#"I0101 kubelet_volumes.go:201] "Orphaned pod found, but volumes are not cleaned up" podUID="<uid>""#,
                1,
            ),
            (
                r#"I0101 kubelet_volumes.go:201] "Orphaned pod found, but volumes are not cleaned up" podUID=<uid>"#,
                1,
            ),
            // JSON
            (
                r#"{"ts":1.5,"msg":"There were many similar errors. Turn up verbosity to see them.","err":"orphaned pod \"<uid>\" found, but x","numErrs":4}"#,
                4,
            ),
            (
                r#"{"msg":"Orphaned pod found, but volumes are not cleaned up","podUID":"<uid>"}"#,
                1,
            ),
            // in JSON within JSON
            (r#"{"log":"err=\"orphaned pod \\\"<uid>\\\" found, but x\""}"#, 1),
        ];
        for uid in [UID, HASH] {
            for (line, count) in lines {
                assert_eq!(
                    names(&line.replace("<uid>", uid)),
                    (vec![uid.to_owned()], count),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn t19_only_a_uid_is_taken_from_a_line_and_never_a_path() {
        for line in [
            r#"Orphaned pod "" found, but volume paths are still present on disk."#,
            r#"Orphaned pod ".." found, but volume paths are still present on disk."#,
            r#"Orphaned pod "*" found, but volume paths are still present on disk."#,
            r#"Orphaned pod "a/b" found, but volume paths are still present on disk."#,
            r#"Orphaned pod "0C9A8C4E-3A51-4C0E-9D1C-5A2F6F0F6B11" found, but x"#,
            r#"removed /var/lib/kubelet/pods/0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11/volumes"#,
            r#"pod "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11" found, but x"#,
        ] {
            assert_eq!(names(line), (vec![], 0), "{line}");
        }
    }

    #[test]
    fn a_log_that_is_no_text_is_read_all_the_same() {
        let log = [
            b"\xff\xfe\n",
            format!("Orphaned pod \"{UID}\" found, but x").as_bytes(),
        ]
        .concat();
        assert_eq!(from_log(&log[..]).unwrap().uids.len(), 1);
    }
}
