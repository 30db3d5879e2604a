//! Patterns of file names, as Go's `filepath.Glob` takes them: `*`, `?`, `[a-z]`, `[^a]` and `\`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::Files;

/// The files that an absolute pattern stands for, sorted.
pub(super) fn find(files: &Files, pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::from("/")];
    let names = pattern.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => None,
    });
    let mut wild = false;
    for name in names {
        wild |= name.as_bytes().iter().any(|byte| b"*?[".contains(byte));
        found = step(files, &found, name, wild)?;
    }
    Ok(found)
}

fn step(files: &Files, dirs: &[PathBuf], pattern: &OsStr, wild: bool) -> Result<Vec<PathBuf>, String> {
    if !wild {
        return Ok(dirs.iter().map(|dir| dir.join(pattern)).collect());
    }
    let mut found = Vec::new();
    for dir in dirs {
        let names = files.list(dir)?;
        let matching = names
            .iter()
            .filter(|name| matches(pattern.as_bytes(), name.as_bytes()));
        found.extend(matching.map(|name| dir.join(name)));
    }
    Ok(found)
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return name.is_empty();
    };
    if first == b'*' {
        return (0..=name.len()).any(|from| matches(rest, name.get(from..).unwrap_or_default()));
    }
    let Some((&byte, after)) = name.split_first() else {
        return false;
    };
    match first {
        b'?' => matches(rest, after),
        b'[' => class(rest, byte).is_some_and(|(inside, rest)| inside && matches(rest, after)),
        b'\\' => rest
            .split_first()
            .is_some_and(|(&literal, rest)| literal == byte && matches(rest, after)),
        literal => literal == byte && matches(rest, after),
    }
}

/// Whether a byte is in the class that begins here, and what follows the class.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut inside = false;
    loop {
        rest = match rest {
            [b']', after @ ..] => return Some((inside != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                inside |= (*low..=*high).contains(&byte);
                after
            }
            [b'\\', one, after @ ..] | [one, after @ ..] => {
                inside |= *one == byte;
                after
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use nodemend_hostfs::Host;

    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, wanted) in [
            ("*.toml", "10-cri.toml", true),
            ("*.toml", ".hidden.toml", true),
            ("*.toml", "10-cri.toml.bak", false),
            ("??-*.toml", "10-cri.toml", true),
            ("[0-9]*", "10", true),
            ("[^0-9]*", "10", false),
            ("[a-", "a", false),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("", "", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                wanted,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn a_pattern_may_have_wild_directories() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["etc/a/x.toml", "etc/b/x.toml", "etc/b/y.conf"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let files = Files::of_host(&Host::at(dir.path()));
        let found = find(&files, Path::new("/etc/*/x.toml")).unwrap();
        assert_eq!(found, [Path::new("/etc/a/x.toml"), Path::new("/etc/b/x.toml")]);
        assert!(find(&files, Path::new("/no/*.toml")).unwrap().is_empty());
    }
}
