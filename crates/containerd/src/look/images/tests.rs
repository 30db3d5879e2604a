use std::fs;

use sha2::{Digest, Sha256};

use super::*;
use crate::look::bolt::tests::{PAGE, empty, put_head, put_meta};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const NO_FREELIST: u64 = u64::MAX;

/// A page of a leaf: keys with values and whether they are buckets.
fn leaf(entries: &[(&str, Vec<u8>, bool)]) -> Vec<u8> {
    let mut elements = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    for (nth, (key, value, is_bucket)) in entries.iter().enumerate() {
        let from_element = (entries.len() - nth) * 16 + data.len();
        for word in [usize::from(*is_bucket), from_element, key.len(), value.len()] {
            elements.extend(u32::try_from(word).unwrap().to_ne_bytes());
        }
        data.extend(key.as_bytes());
        data.extend(value);
    }
    [head(2, entries.len()), elements, data].concat()
}

fn head(kind: u16, count: usize) -> Vec<u8> {
    let count = u16::try_from(count).unwrap();
    [&[0; 8][..], &kind.to_ne_bytes(), &count.to_ne_bytes(), &[0; 4]].concat()
}

fn branch(below: &[u64]) -> Vec<u8> {
    let mut page = head(1, below.len());
    for id in below {
        page.extend([0; 8]);
        page.extend(id.to_ne_bytes());
    }
    page
}

fn inline(entries: &[(&str, Vec<u8>, bool)]) -> Vec<u8> {
    [vec![0; 16], leaf(entries)].concat()
}

fn at_page(id: u64) -> Vec<u8> {
    [id.to_ne_bytes(), [0; 8]].concat()
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// As Go's `binary.PutVarint`.
fn varint(number: usize) -> Vec<u8> {
    let mut left = number << 1;
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes
}

fn record((digest, size): &(String, usize), media_type: &str) -> Vec<u8> {
    let target = inline(&[
        ("digest", text(digest), false),
        ("mediatype", text(media_type), false),
        ("size", varint(*size), false),
    ]);
    let labels = inline(&[("io.cri-containerd.image", text("managed"), false)]);
    inline(&[
        ("createdat", vec![1; 15], false),
        ("labels", labels, true),
        ("target", target, true),
    ])
}

/// A database with these records of images, each on a leaf of its own below a branch, as a large bucket is.
fn database(records: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let leaves: Vec<u64> = (7..).take(records.len()).collect();
    let mut pages = vec![
        leaf(&[("v1", at_page(4), true)]),
        leaf(&[("k8s.io", at_page(5), true), ("version", vec![6], false)]),
        leaf(&[("images", at_page(6), true), ("leases", inline(&[]), true)]),
        branch(&leaves),
    ];
    pages.extend(
        records
            .iter()
            .map(|(name, record)| leaf(&[(name, record.clone(), true)])),
    );
    let mut bytes = empty();
    bytes.resize((3 + pages.len()) * PAGE, 0);
    for number in 0..2 {
        put_meta(&mut bytes, number, number, NO_FREELIST);
    }
    for (number, page) in (3..).zip(pages) {
        let at = number * PAGE;
        bytes[at..at + page.len()].copy_from_slice(&page);
        put_head(&mut bytes, number, u16::from_ne_bytes([page[8], page[9]]));
    }
    bytes
}

/// A root on the disk.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(store(root.0.path())).unwrap();
        fs::create_dir_all(super::database(root.0.path()).parent().unwrap()).unwrap();
        root
    }

    fn write(&self, database: &[u8]) {
        fs::write(super::database(self.0.path()), database).unwrap();
    }

    fn images(&self) -> Images {
        images(self.0.path())
    }

    fn path(&self, digest: &str) -> PathBuf {
        store(self.0.path()).join(digest.trim_start_matches("sha256:"))
    }

    fn blob(&self, content: &str) -> (String, usize) {
        let hash = Sha256::digest(content.as_bytes());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        fs::write(self.path(&digest), content).unwrap();
        (digest, content.len())
    }

    /// A manifest of a configuration and a layer, all of this name.
    fn manifest(&self, name: &str) -> (String, usize) {
        let (config, layer) = (
            self.blob(&format!("{{\"config\":\"{name}\"}}")),
            self.blob(&format!("layer of {name}")),
        );
        let text = serde_json::json!({
            "config": {"digest": config.0, "size": config.1, "mediaType": "application/json"},
            "layers": [{"digest": layer.0, "size": layer.1, "mediaType": "application/tar"}],
        });
        self.blob(&text.to_string())
    }

    fn index(&self, manifests: &[(&(String, usize), &str, &str)]) -> (String, usize) {
        let manifests = manifests
            .iter()
            .map(|((digest, size), os, architecture)| {
                serde_json::json!({
                    "digest": digest, "size": size, "mediaType": MANIFEST,
                    "platform": {"os": os, "architecture": architecture},
                })
            })
            .collect::<Vec<_>>();
        self.blob(&serde_json::json!({ "manifests": manifests }).to_string())
    }

    /// Its only image, whose target is this.
    fn only(&self, target: &(String, usize), media_type: &str) -> StoredImage {
        self.write(&database(&[("registry/a:1", record(target, media_type))]));
        let mut found = self.images();
        assert_eq!((found.faults.len(), &found.unnamed), (0, &None));
        assert_eq!(found.images.len(), 1);
        found.images.remove(0)
    }
}

/// Three names of two images.
fn two() -> (Root, Vec<u8>) {
    let root = Root::new();
    let (one, other) = (root.manifest("one"), root.manifest("other"));
    let bytes = database(&[
        ("registry/one:1", record(&one, MANIFEST)),
        ("registry/one@sha256:0", record(&one, MANIFEST)),
        ("registry/other:1", record(&other, MANIFEST)),
    ]);
    (root, bytes)
}

#[test]
fn names_of_one_image_are_one_image() {
    let (root, bytes) = two();
    root.write(&bytes);
    let found = root.images();
    assert_eq!((found.faults.len(), &found.unnamed), (0, &None));
    let names: Vec<&str> = found.images.iter().map(StoredImage::name).collect();
    assert_eq!(names, ["registry/one:1", "registry/other:1"]);
    assert_eq!(found.images[0].names.len(), 2);
    let labels = &found.images[0].names["registry/one:1"];
    assert_eq!(labels["io.cri-containerd.image"], "managed");
    assert!(
        found
            .images
            .iter()
            .all(|image| image.lacks.is_none() && image.blobs.len() == 3)
    );

    let named = |name: &str| ImageChoice::Named(vec![name.to_owned(), "registry/no:1".to_owned()]);
    let choice = named("registry/one@sha256:0");
    assert_eq!(found.chosen(&choice), [&found.images[0]]);
    assert_eq!(found.missing(&choice), ["registry/no:1"]);
    assert_eq!(found.chosen(&ImageChoice::All).len(), 2);
    assert_eq!(found.chosen(&named("registry/on")), [&found.images[0]; 0]);
}

#[test]
fn a_page_that_is_corrupt_is_told_and_the_others_are_read() {
    let (root, whole) = two();
    for page in 3..whole.len() / PAGE {
        for garbage in [0x00, 0xff, 0x5a] {
            let mut bytes = whole.clone();
            bytes[page * PAGE..(page + 1) * PAGE].fill(garbage);
            root.write(&bytes);
            let found = root.images();
            match page {
                3..=6 => assert!(found.unnamed.is_some(), "page {page}: {found:?}"),
                _ => {
                    assert_eq!(found.faults.len(), 1, "page {page}: {found:?}");
                    let names: usize = found.images.iter().map(|image| image.names.len()).sum();
                    assert_eq!(names, 2);
                }
            }
        }
    }
}

/// Whatever a byte says, reading ends, and nothing is read that was not written.
#[test]
fn no_single_byte_makes_the_reader_fail_or_invent_an_image() {
    let (root, whole) = two();
    let used: Vec<usize> = (3 * PAGE..whole.len())
        .filter(|at| at % PAGE < 400)
        .step_by(3)
        .collect();
    for at in used {
        for value in [0x00, 0x01, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            root.write(&bytes);
            let found = root.images();
            let lacking = found.images.iter().filter(|image| image.lacks.is_some());
            assert!(found.images.len() - lacking.count() <= 2, "byte {at}: {found:?}");
        }
    }
}

#[test]
fn pages_in_a_circle_a_cut_file_and_a_file_that_is_none_are_told() {
    let (root, whole) = two();
    let mut circle = whole.clone();
    let page = [branch(&[6, 6, 6, 6]), vec![0; 64]].concat();
    circle[6 * PAGE..6 * PAGE + page.len()].copy_from_slice(&page);
    put_head(&mut circle, 6, 1);
    root.write(&circle);
    assert!(root.images().unnamed.is_some());

    root.write(&whole[..9 * PAGE]);
    let cut = root.images();
    assert_eq!(cut.images.len(), 1, "{cut:?}");
    assert!(cut.faults[0].contains("page 9"), "{cut:?}");

    for (bytes, why) in [
        (vec![0x5a; 4 * PAGE], "meta pages"),
        (Vec::new(), "meta pages"),
        (empty(), "no record"),
    ] {
        root.write(&bytes);
        let unnamed = root.images().unnamed.unwrap();
        assert!(unnamed.contains(why), "{unnamed}");
    }
    fs::remove_file(super::database(root.0.path())).unwrap();
    assert!(root.images().unnamed.unwrap().contains("No such file"));
}

#[test]
fn a_torn_transaction_leaves_the_names_of_the_one_before() {
    let (root, whole) = two();
    let mut torn = whole.clone();
    // The newer meta page, that of transaction 1, names a root bucket that was never written.
    let meta = PAGE + 16;
    torn[meta + 16..meta + 24].copy_from_slice(&2_u64.to_ne_bytes());
    let sum = torn[meta..meta + 56]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    torn[meta + 56..meta + 64].copy_from_slice(&sum.to_ne_bytes());
    root.write(&torn);
    assert_eq!(root.images().images.len(), 2);
}

#[test]
fn an_image_without_all_of_its_blobs_is_not_whole() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 4] = [
        ("No such file", |layer| fs::remove_file(layer).unwrap()),
        ("has 3 bytes of 10", |layer| fs::write(layer, "abc").unwrap()),
        ("is no file", |layer| {
            fs::rename(layer, layer.with_extension("away")).unwrap();
            std::os::unix::fs::symlink(layer.with_extension("away"), layer).unwrap();
        }),
        ("is no file", |layer| {
            fs::remove_file(layer).unwrap();
            fs::create_dir(layer).unwrap();
        }),
    ];
    for (why, harm) in cases {
        let root = Root::new();
        let target = root.manifest("a");
        let layer = root.path(&root.blob("layer of a").0);
        assert_eq!(root.only(&target, MANIFEST).lacks, None);
        harm(&layer);
        let lacks = root.only(&target, MANIFEST).lacks.unwrap();
        assert!(lacks.contains(why), "{lacks}");
    }
}

#[test]
fn a_manifest_that_is_corrupt_or_of_another_kind_is_not_followed() {
    let root = Root::new();
    let target = root.manifest("a");
    let unknown = root.only(
        &target,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    );
    assert!(unknown.lacks.unwrap().contains("is not known"));
    let other = root.blob("{}");
    assert!(
        root.only(&other, MANIFEST)
            .lacks
            .unwrap()
            .contains("neither a manifest nor an index")
    );
    let path = root.path(&target.0);
    let changed = fs::read_to_string(&path)
        .unwrap()
        .replace("application/tar", "application/tax");
    fs::write(&path, changed).unwrap();
    let lacks = root.only(&target, MANIFEST).lacks.unwrap();
    assert!(lacks.contains("its bytes are those of"), "{lacks}");
    for digest in ["sha256:../../../etc/passwd", "sha512:00", "", "sha256:ABCD"] {
        let lacks = root.only(&(digest.to_owned(), 2), MANIFEST).lacks.unwrap();
        assert!(lacks.contains("is no sha256"), "{lacks}");
    }
}

#[test]
fn of_an_index_only_what_this_node_needs_must_be_there() {
    let root = Root::new();
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let here = root.manifest("here");
    let absent = (format!("sha256:{}", "0".repeat(64)), 7);
    let index = root.index(&[(&absent, "linux", "s390x"), (&here, "linux", ours)]);
    let image = root.only(&index, INDEX);
    assert_eq!((image.lacks, image.blobs.len()), (None, 4));
    let blobs = blobs_of(root.0.path(), &root.only(&index, INDEX)).unwrap();
    let last = blobs.last().unwrap();
    assert_eq!((&last.digest, &last.children), (&index.0, &vec![here.0.clone()]));

    let foreign = root.index(&[(&here, "linux", "s390x"), (&absent, "linux", ours)]);
    let lacks = root.only(&foreign, INDEX).lacks.unwrap();
    assert!(lacks.contains(&absent.0), "{lacks}");
    let none = root.index(&[(&here, "windows", ours)]);
    let lacks = root.only(&none, INDEX).lacks.unwrap();
    assert!(lacks.contains("nothing for this node"), "{lacks}");
}
