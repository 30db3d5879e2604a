//! The records of images in containerd's metadata database: `v1/<namespace>/images/<name>`, each with its target and its
//! labels (core/metadata/buckets.go).

use std::collections::BTreeMap;
use std::path::Path;

use crate::look::bolt::sound;
use crate::look::bolt_tree::{Bucket, Entries, Tree, Value};

/// The namespace of CRI.
const NAMESPACE: &str = "k8s.io";
/// How many faults are told.
const TOLD: usize = 5;

/// What a database tells.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) records: Vec<Record>,
    pub(super) faults: Vec<String>,
}

/// A name of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) digest: String,
    pub(super) media_type: String,
    /// Bytes.
    pub(super) size: u64,
}

/// Reads them. Takes no lock, and writes nothing.
///
/// # Errors
/// Why no name is known.
pub(super) fn read(path: &Path) -> Result<Records, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = super::blobs::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let metas = sound(&file, size).map_err(failed)?;
    if metas.is_empty() {
        return Err(format!("{}: neither of its meta pages is sound", path.display()));
    }
    let mut last = Vec::new();
    // The pages of the transaction before are there until the next one: if the newer tree is torn, the older may not be.
    for meta in metas {
        let mut tree = Tree::new(&file, meta);
        let records = of(&mut tree).unwrap_or_default();
        tree.faults.dedup();
        tree.faults.truncate(TOLD);
        if !records.is_empty() {
            return Ok(Records {
                records,
                faults: tree.faults,
            });
        }
        last = tree.faults;
        if last.is_empty() {
            break;
        }
    }
    match last.is_empty() {
        true => Err(format!("{}: it has no record of an image", path.display())),
        false => Err(format!("{}: {}", path.display(), last.join("; "))),
    }
}

/// None if there is no bucket of images.
fn of(tree: &mut Tree<'_>) -> Option<Vec<Record>> {
    let images = tree.bucket(&["v1", NAMESPACE, "images"])?;
    let images = tree.entries(&images);
    let mut records = Vec::new();
    for (name, value) in images {
        let Value::Bucket(bucket) = value else { continue };
        match record(tree, &name, &bucket) {
            Some(record) => records.push(record),
            None => tree.faults.push(format!(
                "the record of {} is not whole",
                String::from_utf8_lossy(&name)
            )),
        }
    }
    Some(records)
}

fn record(tree: &mut Tree<'_>, name: &[u8], bucket: &Bucket) -> Option<Record> {
    let fields = tree.entries(bucket);
    let target = tree.entries(below(&fields, "target")?);
    let text = |name: &str| String::from_utf8(bytes(&target, name)?).ok();
    let labels = below(&fields, "labels").cloned();
    let labels = labels.map(|labels| strings(tree.entries(&labels)));
    Some(Record {
        name: String::from_utf8(name.to_vec()).ok()?,
        labels: labels.unwrap_or_default(),
        digest: text("digest")?,
        media_type: text("mediatype")?,
        size: varint(&bytes(&target, "size")?)?,
    })
}

fn below<'e>(entries: &'e Entries, name: &str) -> Option<&'e Bucket> {
    entries.iter().find_map(|(key, value)| match value {
        Value::Bucket(bucket) if key == name.as_bytes() => Some(bucket),
        Value::Bucket(_) | Value::Bytes(_) => None,
    })
}

fn bytes(entries: &Entries, name: &str) -> Option<Vec<u8>> {
    entries.iter().find_map(|(key, value)| match value {
        Value::Bytes(bytes) if key == name.as_bytes() => Some(bytes.clone()),
        Value::Bucket(_) | Value::Bytes(_) => None,
    })
}

/// The entries that are text.
fn strings(entries: Entries) -> BTreeMap<String, String> {
    let text = entries.into_iter().filter_map(|(key, value)| match value {
        Value::Bytes(bytes) => Some((String::from_utf8(key).ok()?, String::from_utf8(bytes).ok()?)),
        Value::Bucket(_) => None,
    });
    text.collect()
}

/// A signed number as Go's `binary.PutVarint` writes it: zigzag, seven bits in a byte, the lowest first.
fn varint(bytes: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for (nth, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f).checked_shl(u32::try_from(nth).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return (number & 1 == 0).then_some(number >> 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_go_writes_them() {
        assert_eq!(varint(&[0]), Some(0));
        assert_eq!(varint(&[2]), Some(1));
        assert_eq!(varint(&[0xac, 0x02]), Some(150));
        assert_eq!(varint(&[1]), None, "no size is negative");
        assert_eq!(varint(&[]), None);
        assert_eq!(varint(&[0x80; 12]), None);
    }
}
