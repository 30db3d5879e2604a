//! A bbolt database, by its first pages: enough to tell a torn, truncated or overwritten one from one that opens.
//!
//! The form is that of bbolt (internal/common/{page,meta}.go, db.go): a page begins with its id (8 bytes), its kind
//! (2), a count (2) and an overflow (4). Pages 0 and 1 are meta pages: behind the head stand the magic number, the version,
//! the page size and flags (4 bytes each), then the root bucket (page and sequence), the free list, the first page that was
//! never used and the transaction (8 bytes each), and the FNV-1a hash of all that. Integers are the machine's own. bbolt
//! opens a file of which one meta page is sound, and takes the one with the newer transaction.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::{FileId, Host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bbolt database of containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes; None if there is no such file.
    pub size: Option<u64>,
    /// Its two meta pages. bbolt opens a database of which one is sound.
    pub pages: Vec<MetaPage>,
    /// Everything that keeps it from being opened, as far as its first pages tell. Empty does not prove the rest.
    pub faults: Vec<String>,
    /// Why it could not be read, if it is there.
    pub unread: Option<String>,
    /// Who holds its lock.
    pub lock: Lock,
}

/// A meta page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetaPage {
    /// 0 or 1.
    pub number: u8,
    /// What is wrong with it; None if it is sound.
    pub fault: Option<String>,
    /// Its transaction, if it is sound.
    pub transaction: Option<u64>,
}

/// Who holds the lock of a database. containerd does from its start to its end, and so does one that hangs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "lock", content = "what", rename_all = "camelCase")]
pub enum Lock {
    /// Nobody.
    Free,
    /// That process.
    Held(u32),
    /// Not known, because …
    Unknown(String),
}

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
pub(super) const HEAD: usize = 16;
/// What the hash covers, and the hash.
const META: usize = 64;
pub(super) const IS_BRANCH: u16 = 0x01;
pub(super) const IS_LEAF: u16 = 0x02;
const IS_META: u16 = 0x04;
const IS_FREELIST: u16 = 0x10;
/// containerd does not write the free list down (`NoFreelistSync` in its metadata plugin, since 1.7).
const NO_FREELIST: u64 = u64::MAX;
/// The page sizes at which bbolt looks for the second meta page if the first is bad.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 10..=25;
/// The size of pages on x86 and most others.
const USUAL_PAGE: u64 = 4096;
/// A database in use is written to while it is read: a page is looked at again before it is called bad.
const LOOKS: usize = 3;
/// The most of the kernel's list of locks that is read, in bytes.
const LOCKS: u64 = 16 << 20;

/// containerd's databases: that of its metadata, and those of its snapshotters that have one.
pub(super) fn databases(host: &Host, root: &Path) -> Vec<Database> {
    let mut found = vec![database(
        host,
        &root.join("io.containerd.metadata.v1.bolt/meta.db"),
    )];
    let plugins = host.list(root).unwrap_or_default();
    let snapshotters = plugins.iter().filter(|name| {
        name.to_string_lossy()
            .starts_with("io.containerd.snapshotter.v1.")
    });
    let more = snapshotters.map(|name| database(host, &root.join(name).join("metadata.db")));
    found.extend(more.filter(|database| database.size.is_some() || database.unread.is_some()));
    found
}

/// Looks at one database. Takes no lock: a lock that is held for a moment can keep containerd from starting.
pub(super) fn database(host: &Host, path: &Path) -> Database {
    let mut found = Database {
        path: path.to_owned(),
        size: None,
        pages: Vec::new(),
        faults: Vec::new(),
        unread: None,
        lock: Lock::Free,
    };
    let file = match host.open(path) {
        Ok(fd) => File::from(fd),
        Err(error) if error.is_not_found() => return found,
        Err(error) => {
            found.unread = Some(error.to_string());
            return found;
        }
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => found.size = Some(metadata.len()),
        Ok(_) => found.unread = Some("it is not a regular file".to_owned()),
        Err(error) => found.unread = Some(error.to_string()),
    }
    if let Some(size) = found.size {
        let mut read = read(&file, size);
        for _ in 1..LOOKS {
            if read.as_ref().is_ok_and(|(_, faults)| faults.is_empty()) {
                break;
            }
            read = self::read(&file, size);
        }
        match read {
            Ok((pages, faults)) => (found.pages, found.faults) = (pages, faults),
            Err(error) => found.unread = Some(error.to_string()),
        }
    }
    found.lock = lock(host, &file);
    found
}

/// A sound meta page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) page_size: u64,
    /// The page of the root bucket.
    pub(super) root: u64,
    freelist: u64,
    /// The first page that was never used.
    pub(super) high_water: u64,
    transaction: u64,
}

fn read(file: &File, size: u64) -> std::io::Result<(Vec<MetaPage>, Vec<String>)> {
    if size == 0 {
        // bbolt makes a new database of an empty file.
        return Ok((Vec::new(), Vec::new()));
    }
    let metas = metas(file, size)?;
    let pages = (0..2_u8).zip(&metas).map(|(number, meta)| MetaPage {
        number,
        fault: meta.as_ref().err().cloned(),
        transaction: meta.as_ref().ok().map(|meta| meta.transaction),
    });
    let pages: Vec<MetaPage> = pages.collect();
    let newest = metas.into_iter().flatten().max_by_key(|meta| meta.transaction);
    let faults = match newest {
        Some(meta) => faults_behind(file, &meta, size)?,
        None => vec![
            pages
                .iter()
                .filter_map(|page| Some(format!("meta page {}: {}", page.number, page.fault.as_ref()?)))
                .collect::<Vec<_>>()
                .join("; "),
        ],
    };
    Ok((pages, faults))
}

/// Both meta pages.
fn metas(file: &File, size: u64) -> std::io::Result<[Result<Meta, String>; 2]> {
    let first = meta(file, 0)?;
    let second = match &first {
        Ok(meta) => self::meta(file, meta.page_size)?,
        Err(_) => second(file, size)?,
    };
    Ok([first, second])
}

/// The sound meta pages, the newer first.
pub(super) fn sound(file: &File, size: u64) -> std::io::Result<Vec<Meta>> {
    let mut sound: Vec<Meta> = metas(file, size)?.into_iter().flatten().collect();
    sound.sort_by_key(|meta| std::cmp::Reverse(meta.transaction));
    Ok(sound)
}

/// If the first meta page is bad, nothing tells the page size (`getPageSizeFromSecondMeta`).
fn second(file: &File, size: u64) -> std::io::Result<Result<Meta, String>> {
    let mut last = Err("it was not found".to_owned());
    for offset in PAGE_SIZES
        .map(|bits| 1_u64 << bits)
        .filter(|offset| *offset < size)
    {
        match meta(file, offset)? {
            Ok(meta) if meta.page_size == offset => return Ok(Ok(meta)),
            // The usual size is the likeliest: its fault is told.
            Err(fault) if offset == USUAL_PAGE => last = Err(fault),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(last)
}

fn meta(file: &File, offset: u64) -> std::io::Result<Result<Meta, String>> {
    let mut bytes = [0; HEAD + META];
    let read = read_at(file, &mut bytes, offset)?;
    if read < bytes.len() {
        return Ok(Err("the file ends in it".to_owned()));
    }
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8; HEAD + META]) -> Result<Meta, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err("it holds zeros alone".to_owned());
    }
    let u32_at = |at: usize| {
        number::<4>(bytes, HEAD + at)
            .map(u32::from_ne_bytes)
            .unwrap_or_default()
    };
    let u64_at = |at: usize| {
        number::<8>(bytes, HEAD + at)
            .map(u64::from_ne_bytes)
            .unwrap_or_default()
    };
    let kind = number::<2>(bytes, 8).map(u16::from_ne_bytes).unwrap_or_default();
    if u32_at(0) != MAGIC {
        return Err(format!(
            "its magic number is {:#010x}, not {MAGIC:#010x}",
            u32_at(0)
        ));
    }
    if u32_at(4) != VERSION {
        return Err(format!("it is of version {}, not {VERSION}", u32_at(4)));
    }
    if fnv1a(&bytes[HEAD..HEAD + META - 8]) != u64_at(META - 8) {
        return Err("its checksum is wrong".to_owned());
    }
    if kind & IS_META == 0 {
        return Err(format!("its page is of kind {kind:#x}, not a meta page"));
    }
    if !u32_at(8).is_power_of_two() || u32_at(8) < 1024 {
        return Err(format!("its page size is {}", u32_at(8)));
    }
    Ok(Meta {
        page_size: u64::from(u32_at(8)),
        root: u64_at(16),
        freelist: u64_at(32),
        high_water: u64_at(40),
        transaction: u64_at(48),
    })
}

/// What is wrong with the pages that bbolt reads next.
fn faults_behind(file: &File, meta: &Meta, size: u64) -> std::io::Result<Vec<String>> {
    let mut faults = Vec::new();
    let end = meta.high_water.saturating_mul(meta.page_size);
    if size < end {
        faults.push(format!("it is cut: {size} bytes of {end}"));
    }
    let mut check = |what: &str, page: u64, kinds: u16| -> std::io::Result<()> {
        let mut head = [0; HEAD];
        let read = match page.checked_mul(meta.page_size) {
            Some(offset) if page < meta.high_water => read_at(file, &mut head, offset)?,
            Some(_) | None => 0,
        };
        let id = number::<8>(&head, 0).map(u64::from_ne_bytes).unwrap_or_default();
        let kind = number::<2>(&head, 8).map(u16::from_ne_bytes).unwrap_or_default();
        if read < HEAD {
            faults.push(format!("its {what} (page {page}) lies behind its end"));
        } else if id != page || kind & kinds == 0 {
            faults.push(format!(
                "page {page} should be its {what}; it says that it is page {id} of kind {kind:#x}"
            ));
        }
        Ok(())
    };
    check("root bucket", meta.root, IS_BRANCH | IS_LEAF)?;
    if meta.freelist != NO_FREELIST {
        check("free list", meta.freelist, IS_FREELIST)?;
    }
    Ok(faults)
}

pub(super) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Who holds the flock of a file, from the kernel's own list (proc_locks(5)). A process of another pid namespace has no
/// pid here, and is not listed.
fn lock(host: &Host, file: &File) -> Lock {
    if !host.is_running() {
        return Lock::Unknown("this is a tree on a disk".to_owned());
    }
    let told = || -> Result<Option<u32>, String> {
        let id = FileId::of(file.as_fd()).map_err(|error| error.to_string())?;
        let locks = host
            .read(Path::new("/proc/locks"), LOCKS)
            .map_err(|error| error.to_string())?;
        Ok(holder(&String::from_utf8_lossy(&locks), id.ino))
    };
    match told() {
        Ok(Some(pid)) => Lock::Held(pid),
        Ok(None) => Lock::Free,
        Err(reason) => Lock::Unknown(reason),
    }
}

/// `1: FLOCK  ADVISORY  WRITE 1234 08:01:393217 0 EOF`. The device is left aside: btrfs and overlay tell another one by
/// stat(2), and a lock on a file of the same number elsewhere errs to the safe side.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_flock = words.next()? == "FLOCK";
        let pid = words.nth(2)?.parse().ok()?;
        let file = words.next()?.rsplit(':').next()?;
        (is_flock && file.parse() == Ok(inode)).then_some(pid)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const PAGE: usize = 4096;

    /// A database as bbolt makes it: two meta pages, an empty free list, an empty root bucket (`db.init`).
    pub(crate) fn empty() -> Vec<u8> {
        let mut bytes = vec![0; 4 * PAGE];
        for number in 0..2_u64 {
            put_meta(&mut bytes, number, number, 2);
        }
        put_head(&mut bytes, 2, IS_FREELIST);
        put_head(&mut bytes, 3, IS_LEAF);
        bytes
    }

    pub(crate) fn put_head(bytes: &mut [u8], page: usize, kind: u16) {
        let at = page * PAGE;
        bytes[at..at + 8].copy_from_slice(&(page as u64).to_ne_bytes());
        bytes[at + 8..at + 10].copy_from_slice(&kind.to_ne_bytes());
    }

    pub(crate) fn put_meta(bytes: &mut [u8], number: u64, transaction: u64, freelist: u64) {
        let page = usize::try_from(number).unwrap();
        put_head(bytes, page, IS_META);
        let mut meta = Vec::new();
        for word in [MAGIC, VERSION, u32::try_from(PAGE).unwrap(), 0] {
            meta.extend(word.to_ne_bytes());
        }
        let pages = (bytes.len() / PAGE) as u64;
        for word in [3, 0, freelist, pages, transaction] {
            meta.extend(word.to_ne_bytes());
        }
        meta.extend(fnv1a(&meta).to_ne_bytes());
        let at = page * PAGE + HEAD;
        bytes[at..at + META].copy_from_slice(&meta);
    }

    fn look(bytes: &[u8]) -> Database {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        std::fs::write(&path, bytes).unwrap();
        let found = database(&Host::local(), &path);
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it was written to");
        found
    }

    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Database {
        let mut bytes = empty();
        change(&mut bytes);
        look(&bytes)
    }

    #[test]
    fn a_sound_database_has_no_fault() {
        let found = look(&empty());
        assert_eq!(found.faults, [""; 0]);
        let transactions: Vec<_> = found.pages.iter().map(|page| page.transaction).collect();
        assert_eq!(transactions, [Some(0), Some(1)]);
        assert_eq!((found.lock, found.unread), (Lock::Free, None));
        assert_eq!(look(&[]).faults, [""; 0]);
        assert_eq!(database(&Host::local(), Path::new("/no/meta.db")).size, None);
        // As containerd writes it since 1.7: no free list.
        assert_eq!(
            changed(|bytes| put_meta(bytes, 1, 7, NO_FREELIST)).faults,
            [""; 0]
        );
    }

    #[test]
    fn one_bad_meta_page_is_told_and_is_no_fault() {
        for number in [0, 1] {
            let found = changed(|bytes| bytes[number * PAGE + HEAD + 50] ^= 0xff);
            assert_eq!(
                found.pages[number].fault.as_deref(),
                Some("its checksum is wrong")
            );
            assert_eq!(found.pages[1 - number].fault, None);
            assert_eq!(found.faults, [""; 0]);
        }
    }

    #[test]
    fn two_bad_meta_pages_are_a_fault_that_names_both() {
        let found = changed(|bytes| bytes[..2 * PAGE].fill(0));
        assert_eq!(
            found.faults,
            ["meta page 0: it holds zeros alone; meta page 1: it holds zeros alone"]
        );
        let text = changed(|bytes| bytes.fill(b'x')).faults.join("");
        assert!(text.contains("magic number is 0x78787878"), "{text}");
    }

    #[test]
    fn a_cut_database_and_one_with_foreign_pages_are_faulty() {
        let cut = changed(|bytes| bytes.truncate(3 * PAGE)).faults;
        assert_eq!(cut[0], "it is cut: 12288 bytes of 16384");
        let short = look(&empty()[..100]).faults;
        assert_eq!(short.len(), 3, "{short:?}");
        // As in containerd#9929: "Page expected to be: 3393, but self identifies as 6868074383292906018".
        let foreign = changed(|bytes| bytes[3 * PAGE..].fill(b'_')).faults;
        assert!(
            foreign[0].starts_with("page 3 should be its root bucket"),
            "{foreign:?}"
        );
        let freelist = changed(|bytes| put_head(bytes, 2, IS_META)).faults;
        assert!(
            freelist[0].starts_with("page 2 should be its free list"),
            "{freelist:?}"
        );
    }

    #[test]
    fn who_holds_the_lock_is_told_by_the_kernel() {
        let locks = "1: POSIX  ADVISORY  WRITE 41 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 1234 08:01:77 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 99 08:01:78 0 EOF\n";
        assert_eq!(holder(locks, 77), Some(1234));
        assert_eq!(holder(locks, 78), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        std::fs::write(&path, empty()).unwrap();
        let file = File::open(&path).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        assert_eq!(
            database(&Host::local(), &path).lock,
            Lock::Held(std::process::id())
        );
    }

    #[test]
    fn the_databases_of_a_root_are_its_metadata_and_its_snapshotters() {
        let root = tempfile::tempdir().unwrap();
        let snapshotter = root.path().join("io.containerd.snapshotter.v1.overlayfs");
        std::fs::create_dir(&snapshotter).unwrap();
        std::fs::create_dir(root.path().join("io.containerd.snapshotter.v1.native")).unwrap();
        std::fs::write(snapshotter.join("metadata.db"), empty()).unwrap();
        let found = databases(&Host::local(), root.path());
        let there: Vec<_> = found.iter().map(|database| database.size.is_some()).collect();
        assert_eq!(there, [false, true]);
        assert_eq!(found[1].path, snapshotter.join("metadata.db"));
    }
}
