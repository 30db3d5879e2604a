//! The buckets of a bbolt database, read page by page from its file; what is corrupt is told, and the rest is read.
//!
//! The form is that of bbolt (internal/common/{page,bucket}.go). Behind the head of a page stand its elements: of a branch
//! the offset and size of a key (4 bytes each) and the page below (8); of a leaf its flags, an offset, the size of the key
//! and that of the value (4 each). Offsets count from the element. A value that is a bucket holds its root page and a
//! sequence (8 bytes each); if that page is 0, a leaf page follows in the value itself.

use std::fs::File;

use super::bolt::{HEAD, IS_BRANCH, IS_LEAF, Meta, number, read_at};

/// The size of an element, of a branch and of a leaf.
const ELEMENT: usize = 16;
/// What stands before the inline page of a bucket.
const BUCKET: usize = 16;
/// A flag of a leaf element: the value is a bucket.
const IS_BUCKET: u32 = 1;
/// A tree of 4 KiB pages with 2 keys each would hold a million entries at this depth: bbolt's are far wider.
const DEPTH: usize = 20;
/// The most pages that are read of one database. Pages that point at each other in a circle end here, too.
const PAGES: usize = 1 << 16;
/// The most that one page holds with its overflow, in bytes. containerd's values are a few hundred bytes.
const PAGE_LIMIT: u64 = 16 << 20;

/// A database that is being read.
pub(super) struct Tree<'f> {
    file: &'f File,
    meta: Meta,
    left: usize,
    /// What could not be read.
    pub(super) faults: Vec<String>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// With pages of its own.
    Page(u64),
    /// A leaf page in the value.
    Inline(Vec<u8>),
}

/// A value of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bytes(Vec<u8>),
    Bucket(Bucket),
}

/// What a bucket holds, in the order of the keys.
pub(super) type Entries = Vec<(Vec<u8>, Value)>;

impl<'f> Tree<'f> {
    pub(super) fn new(file: &'f File, meta: Meta) -> Self {
        Self {
            file,
            meta,
            left: PAGES,
            faults: Vec::new(),
        }
    }

    /// The bucket of all buckets.
    pub(super) fn root(&self) -> Bucket {
        Bucket::Page(self.meta.root)
    }

    /// A bucket below buckets. None if there is none, or it cannot be read: then there is a fault.
    pub(super) fn bucket(&mut self, path: &[&str]) -> Option<Bucket> {
        path.iter().try_fold(self.root(), |bucket, name| {
            let found = self
                .entries(&bucket)
                .into_iter()
                .find(|(key, _)| key == name.as_bytes());
            match found? {
                (_, Value::Bucket(bucket)) => Some(bucket),
                (_, Value::Bytes(_)) => None,
            }
        })
    }

    /// All entries of a bucket that can be read.
    pub(super) fn entries(&mut self, bucket: &Bucket) -> Entries {
        let mut found = Vec::new();
        match bucket {
            Bucket::Page(id) => self.walk(*id, DEPTH, &mut found),
            Bucket::Inline(page) => {
                if let Err(fault) = leaf(page, &mut found) {
                    self.faults.push(format!("a bucket within a page: {fault}"));
                }
            }
        }
        found
    }

    fn walk(&mut self, id: u64, depth: usize, found: &mut Entries) {
        let below = match self.page(id) {
            Ok(page) if kind(&page) == IS_LEAF => leaf(&page, found).map(|()| Vec::new()),
            Ok(page) => branch(&page),
            Err(fault) => Err(fault),
        };
        match below {
            Err(fault) => self.faults.push(format!("page {id}: {fault}")),
            Ok(below) if below.is_empty() => {}
            Ok(_) if depth == 0 => self.faults.push(format!("page {id}: lies too deep")),
            Ok(below) => {
                for id in below {
                    if self.left == 0 {
                        self.faults.push("there are too many pages".to_owned());
                        break;
                    }
                    self.walk(id, depth - 1, found);
                }
            }
        }
    }

    /// A page of a tree, with its overflow.
    fn page(&mut self, id: u64) -> Result<Vec<u8>, String> {
        self.left = self.left.checked_sub(1).ok_or("there are too many pages")?;
        let size = self.meta.page_size;
        let offset = id
            .checked_mul(size)
            .filter(|_| (2..self.meta.high_water).contains(&id));
        let offset = offset.ok_or("lies outside of the database")?;
        let mut head = [0; HEAD];
        self.fill(&mut head, offset)?;
        let itself = number(&head, 0).map(u64::from_ne_bytes);
        if itself != Some(id) || !matches!(kind(&head), IS_BRANCH | IS_LEAF) {
            return Err("is not what it should be".to_owned());
        }
        let overflow = u64::from(u32_at(&head, 12).unwrap_or_default());
        let length = (overflow + 1)
            .checked_mul(size)
            .filter(|length| *length <= PAGE_LIMIT.max(size));
        let length = length.and_then(|length| usize::try_from(length).ok());
        let mut page = vec![0; length.ok_or("is too long")?];
        self.fill(&mut page, offset)?;
        Ok(page)
    }

    fn fill(&self, bytes: &mut [u8], offset: u64) -> Result<(), String> {
        match read_at(self.file, bytes, offset) {
            Ok(read) if read == bytes.len() => Ok(()),
            Ok(_) => Err("the file ends in it".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The pages below a branch.
fn branch(page: &[u8]) -> Result<Vec<u64>, String> {
    elements(page)
        .map(|at| number(page, at + 8).map(u64::from_ne_bytes))
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| "it is cut".to_owned())
}

/// Reads the entries of a leaf up to the first that does not fit.
fn leaf(page: &[u8], found: &mut Entries) -> Result<(), String> {
    if kind(page) != IS_LEAF {
        return Err("is not what it should be".to_owned());
    }
    for at in elements(page) {
        let entry = entry(page, at).ok_or("an entry of it leads out of it")?;
        found.push(entry);
    }
    Ok(())
}

fn entry(page: &[u8], at: usize) -> Option<(Vec<u8>, Value)> {
    let size = |offset: usize| usize::try_from(u32_at(page, at + offset)?).ok();
    let key_at = at.checked_add(size(4)?)?;
    let value_at = key_at.checked_add(size(8)?)?;
    let key = page.get(key_at..value_at)?.to_vec();
    let value = page.get(value_at..value_at.checked_add(size(12)?)?)?;
    let value = match u32_at(page, at)? & IS_BUCKET {
        0 => Value::Bytes(value.to_vec()),
        _ => Value::Bucket(match u64::from_ne_bytes(number(value, 0)?) {
            0 => Bucket::Inline(value.get(BUCKET..)?.to_vec()),
            id => Bucket::Page(id),
        }),
    };
    Some((key, value))
}

/// Where the elements of a page stand.
fn elements(page: &[u8]) -> impl Iterator<Item = usize> + use<> {
    let count = number(page, 10).map_or(0, u16::from_ne_bytes);
    (0..usize::from(count)).map(|nth| HEAD + nth * ELEMENT)
}

fn kind(page: &[u8]) -> u16 {
    number(page, 8).map_or(0, u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_ne_bytes)
}
