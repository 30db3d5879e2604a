//! Paths as text, for reports, journals and recordings.
//!
//! A name on Linux is any bytes, and who makes a mount or a file may choose bytes that are no text. serde refuses such a path,
//! and then a whole report would fail for one hostile name. Here each byte that is no UTF-8 is written as `\xNN`, and a
//! backslash as `\x5c`, so that no two paths have the same text and the path can be had back.
//!
//! ```
//! use std::ffi::OsString;
//! use std::os::unix::ffi::OsStringExt;
//! use std::path::PathBuf;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Found {
//!     #[serde(with = "nodemend_hostfs::text")]
//!     path: PathBuf,
//! }
//!
//! let path = PathBuf::from(OsString::from_vec(b"/data/\xff\\".to_vec()));
//! let json = serde_json::to_string(&Found { path: path.clone() })?;
//! assert_eq!(json, r#"{"path":"/data/\\xff\\x5c"}"#);
//! assert_eq!(serde_json::from_str::<Found>(&json)?.path, path);
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text of a name or path.
pub fn of(name: &OsStr) -> Cow<'_, str> {
    if let Some(text) = name.to_str().filter(|text| !text.contains('\\')) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(name.len() + 8);
    let escape = |text: &mut String, byte: u8| {
        // A String takes everything.
        let _ = write!(text, "\\x{byte:02x}");
    };
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => escape(&mut text, b'\\'),
                c => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape(&mut text, byte));
    }
    Cow::Owned(text)
}

/// The name or path that a text of [`of`] stands for.
pub fn parse(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match escaped(rest) {
            Some((byte, tail)) => {
                bytes.push(byte);
                rest = tail;
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The byte that an escape at the beginning stands for, and what comes behind.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, tail) = text.strip_prefix(br"\x")?.split_at_checked(2)?;
    let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((byte, tail))
}

/// What is written as text: paths, and what holds paths.
pub trait AsText {
    /// Writes it.
    ///
    /// # Errors
    /// What the serializer gives.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// What can be had back from its text.
pub trait FromText: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What the deserializer gives.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// For `#[serde(with = "nodemend_hostfs::text")]`.
///
/// # Errors
/// What the serializer gives.
pub fn serialize<T: AsText + ?Sized, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// For `#[serde(with = "nodemend_hostfs::text")]`.
///
/// # Errors
/// What the deserializer gives.
pub fn deserialize<'de, T: FromText, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

impl AsText for OsStr {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&of(self))
    }
}

impl AsText for Path {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_os_str().write(serializer)
    }
}

impl AsText for String {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl FromText for String {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)
    }
}

/// Those that own, or share, what is text.
macro_rules! as_what_they_hold {
    ($($owner:ty => $held:ty),+) => {$(
        impl AsText for $owner {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$held as AsText>::write(self, serializer)
            }
        }

        impl FromText for $owner {
            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'_, str>::deserialize(deserializer)?;
                Ok(PathBuf::from(parse(&text)).into())
            }
        }
    )+};
}

as_what_they_hold!(PathBuf => Path, OsString => OsStr, Arc<Path> => Path);

impl AsText for Arc<OsStr> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OsStr::write(self, serializer)
    }
}

impl FromText for Arc<OsStr> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OsString::read(deserializer).map(Into::into)
    }
}

impl<T: AsText + ?Sized> AsText for &T {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::write(self, serializer)
    }
}

/// Serde's own traits for a part of something.
struct Part<T>(T);

impl<T: AsText> Serialize for Part<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl<'de, T: FromText> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(Self)
    }
}

impl<T: AsText> AsText for Vec<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Part))
    }
}

impl<T: FromText> FromText for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = Vec::<Part<T>>::deserialize(deserializer)?;
        Ok(parts.into_iter().map(|part| part.0).collect())
    }
}

impl<T: AsText> AsText for Option<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Part).serialize(serializer)
    }
}

impl<T: FromText> FromText for Option<T> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Part<T>>::deserialize(deserializer)?.map(|part| part.0))
    }
}

impl<A: AsText, B: AsText> AsText for (A, B) {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Part(&self.0), Part(&self.1)).serialize(serializer)
    }
}

impl<A: FromText, B: FromText> FromText for (A, B) {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (one, other) = <(Part<A>, Part<B>)>::deserialize(deserializer)?;
        Ok((one.0, other.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn every_name_has_a_text_of_its_own_and_comes_back_from_it() {
        for (bytes, text) in [
            (&b"/var/lib/kubelet"[..], "/var/lib/kubelet"),
            ("/caf\u{e9}\n".as_bytes(), "/caf\u{e9}\n"),
            (b"\xff", r"\xff"),
            (br"\xff", r"\x5cxff"),
            (br"dev-disk\x2d1", r"dev-disk\x5cx2d1"),
            (b"a\xe2\x28b\\", r"a\xe2(b\x5c"),
            (b"", ""),
        ] {
            let name = OsStr::from_bytes(bytes);
            assert_eq!(of(name), text);
            assert_eq!(parse(text), name, "{text}");
        }
        for text in [r"\", r"\x", r"\x5", r"\xzz", "\\x\u{e9}"] {
            assert_eq!(parse(text), text, "what is no escape stands for itself");
        }
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=u8::MAX {
            let name = OsString::from_vec(vec![b'a', byte, b'x']);
            assert!(seen.insert(of(&name).into_owned()), "{byte}");
            assert_eq!(parse(&of(&name)), name);
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        #[serde(with = "super")]
        many: Vec<PathBuf>,
        #[serde(with = "super")]
        pairs: Vec<(PathBuf, String)>,
        #[serde(default, with = "super")]
        none: Option<PathBuf>,
        #[serde(default, with = "super")]
        shared: Option<Arc<Path>>,
        #[serde(with = "super")]
        word: Arc<OsStr>,
    }

    #[test]
    fn what_holds_paths_is_written_as_if_they_were_text() {
        let path = PathBuf::from(OsString::from_vec(b"/\xfe".to_vec()));
        let all = All {
            many: vec![path.clone()],
            pairs: vec![(path.clone(), r"a \ b".to_owned())],
            none: None,
            shared: Some(path.clone().into()),
            word: path.into_os_string().into(),
        };
        let json = serde_json::to_value(&all).unwrap();
        let text = r"/\xfe";
        let expected = serde_json::json!({
            "many": [text], "pairs": [[text, r"a \ b"]], "none": null, "shared": text, "word": text
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<All>(json).unwrap(), all);
    }
}
