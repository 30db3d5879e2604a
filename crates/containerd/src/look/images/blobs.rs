//! The blobs of an image in a content store: an index leads to manifests, a manifest to a configuration and layers.
//!
//! containerd fetches what the node's platform needs, so an index leads to manifests that are not there. Layers may have
//! been discarded once they were unpacked (`discard_unpacked_layers`), or never fetched (snapshotters that do it lazily):
//! such an image cannot be unpacked again.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::StoredImage;

/// The most that a manifest holds, in bytes (`MaxManifestSize` of the registry API: 4 MiB).
const MANIFEST: u64 = 4 << 20;
/// An index leads to an index at most now and then.
const DEPTH: usize = 4;
/// How much is hashed at once, in bytes.
const CHUNK: usize = 1 << 18;

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    /// `sha256:…`
    pub(crate) digest: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The blobs that it leads to, which garbage collection must keep with it.
    pub(crate) children: Vec<String>,
}

/// A manifest or an index, as far as it leads to blobs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// Where the blobs of a root are (plugins/content/local/store.go).
pub(crate) fn store(root: &Path) -> PathBuf {
    root.join("io.containerd.content.v1.content/blobs/sha256")
}

/// The blobs of an image, each before those that lead to it.
///
/// # Errors
/// What is missing.
pub(super) fn of(store: &Path, image: &StoredImage) -> Result<Vec<Blob>, String> {
    if !leads_on(&image.media_type) {
        return Err(format!("its type {} is not known", image.media_type));
    }
    let target = Descriptor {
        media_type: image.media_type.clone(),
        digest: image.target.clone(),
        size: image.size,
        platform: None,
    };
    let mut blobs = Vec::new();
    walk(store, &target, DEPTH, &mut blobs)?;
    Ok(blobs)
}

fn walk(store: &Path, at: &Descriptor, depth: usize, blobs: &mut Vec<Blob>) -> Result<(), String> {
    if blobs.iter().any(|blob| blob.digest == at.digest) {
        return Ok(());
    }
    let path = there(store, at)?;
    let children = match leads_on(&at.media_type) {
        false => Vec::new(),
        true if depth == 0 => return Err(format!("{}: lies too deep", at.digest)),
        true => below(store, at, &path, depth, blobs)?,
    };
    blobs.push(Blob {
        digest: at.digest.clone(),
        size: at.size,
        path,
        children,
    });
    Ok(())
}

/// What is below a manifest or an index, all of it.
fn below(
    store: &Path,
    at: &Descriptor,
    path: &Path,
    depth: usize,
    blobs: &mut Vec<Blob>,
) -> Result<Vec<String>, String> {
    let bytes = manifest(at, path)?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", at.digest))?;
    if let Some(manifests) = manifest.manifests {
        return whole(store, at, &manifests, depth, blobs);
    }
    let config = manifest
        .config
        .ok_or_else(|| format!("{}: is neither a manifest nor an index", at.digest))?;
    let mut children = Vec::new();
    for child in std::iter::once(config).chain(manifest.layers) {
        // Neither leads on, whatever it says that it is.
        let child = Descriptor {
            media_type: String::new(),
            ..child
        };
        walk(store, &child, depth - 1, blobs)?;
        children.push(child.digest);
    }
    Ok(children)
}

/// The manifests of an index that are whole; one of them must be for this node.
fn whole(
    store: &Path,
    at: &Descriptor,
    manifests: &[Descriptor],
    depth: usize,
    blobs: &mut Vec<Blob>,
) -> Result<Vec<String>, String> {
    let mut children = Vec::new();
    let (mut is_ours, mut lacks) = (false, format!("{}: has nothing for this node", at.digest));
    for child in manifests {
        let mut more = blobs.clone();
        let ours = child.platform.as_ref().is_none_or(Platform::is_ours);
        match walk(store, child, depth - 1, &mut more) {
            Ok(()) => {
                *blobs = more;
                children.push(child.digest.clone());
                is_ours |= ours && leads_on(&child.media_type);
            }
            Err(reason) if ours => lacks = reason,
            Err(_) => {}
        }
    }
    if is_ours { Ok(children) } else { Err(lacks) }
}

impl Platform {
    /// Variants of an architecture are containerd's matter: it fetched what it can run.
    fn is_ours(&self) -> bool {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        self.os == "linux" && self.architecture == architecture
    }
}

/// OCI's and Docker's types of manifests, indexes and lists.
fn leads_on(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// The path of a blob that is there with its size.
fn there(store: &Path, at: &Descriptor) -> Result<PathBuf, String> {
    let hex = at.digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("{}: is no sha256", at.digest));
    }
    let path = store.join(hex);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.is_file() => Err(format!("{}: is no file", at.digest)),
        Ok(metadata) if metadata.len() == at.size => Ok(path),
        Ok(metadata) => Err(format!(
            "{}: has {} bytes of {}",
            at.digest,
            metadata.len(),
            at.size
        )),
        Err(error) => Err(format!("{}: {error}", at.digest)),
    }
}

fn manifest(at: &Descriptor, path: &Path) -> Result<Vec<u8>, String> {
    if at.size > MANIFEST {
        return Err(format!("{}: is too large for a manifest", at.digest));
    }
    let mut bytes = Vec::new();
    verified(path, &at.digest)?
        .take(MANIFEST)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{}: {error}", at.digest))?;
    Ok(bytes)
}

/// Opens a file for reading: no symlink, and nothing that blocks.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("is no regular file")),
    }
}

/// Opens a blob of which the bytes are those of its digest.
///
/// # Errors
/// In words, if it cannot be read or is corrupt.
pub(crate) fn verified(path: &Path, digest: &str) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => break,
            read => hash.update(chunk.get(..read).unwrap_or_default()),
        }
    }
    let found = hash.finalize();
    let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
    if digest.strip_prefix("sha256:") != Some(&found) {
        return Err(format!("{digest}: its bytes are those of sha256:{found}"));
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}
