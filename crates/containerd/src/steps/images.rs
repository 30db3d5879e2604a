//! Carries images over from the old root: blobs by hard links, records by containerd's API.
//!
//! Done between the start of containerd and that of kubelet, and before the old root is removed. Each part finds out itself
//! whether it is done. Snapshots are not carried over: CRI unpacks an image again for the first container that needs it
//! (`WithNewSnapshot`, internal/cri/opts/container.go).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, hard_link};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodemend_hostfs::Host;
use nodemend_runtime::blocking::with_images;
use nodemend_runtime::{BlobToBring, Brought, ImageStore, ImageToBring};

use crate::error::Error;
use crate::look::images::{self, Blob, ImageChoice, Images, StoredImage};
use crate::options::Options;
use crate::state::Run;

/// How long CRI may take to hear of the images.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Brings the chosen images into the new containerd. Images that are not whole stay behind, and are told.
///
/// # Errors
/// If the names of the images cannot be read, or containerd does not take one that is whole: then the old root must stay.
pub(crate) fn carry(run: &Run, options: &Options) -> Result<Vec<String>, Error> {
    if run.images == ImageChoice::None {
        return Ok(Vec::new());
    }
    let unfit = |reason: String| {
        Error::Unfit(format!(
            "the images cannot be carried over: {reason}; --resume tries again, and --roll-back brings the old root back"
        ))
    };
    let old = run.aside.as_deref();
    let old = old.ok_or_else(|| unfit("nobody knows where the old root is".to_owned()))?;
    let found = images::images(old);
    if let Some(reason) = &found.unnamed {
        return Err(unfit(reason.clone()));
    }
    let lease = format!("nodemend-{}", run.id);
    let carry = |store: &ImageStore<'_>| {
        let mut carrier = Carrier {
            store,
            old,
            new: &run.root.path,
            done: HashSet::new(),
            linked: 0,
            sent: 0,
        };
        carrier.all(&found, &run.images)
    };
    let socket = &run.settings.socket;
    with_images(&Host::local(), socket, &lease, options.ready_within, carry).map_err(unfit)
}

struct Carrier<'c> {
    store: &'c ImageStore<'c>,
    old: &'c Path,
    new: &'c Path,
    /// The blobs that are in the new containerd, by digest.
    done: HashSet<String>,
    /// Blobs that containerd took over as they lie.
    linked: usize,
    /// Blobs that were copied.
    sent: usize,
}

impl Carrier<'_> {
    fn all(&mut self, found: &Images, choice: &ImageChoice) -> Result<Vec<String>, String> {
        let chosen = found.chosen(choice);
        let mut left = Vec::new();
        let mut brought = Vec::new();
        for image in &chosen {
            match self.fit(image) {
                Ok(blobs) => {
                    self.bring(image, &blobs)?;
                    brought.push(image.name().to_owned());
                }
                Err(reason) => left.push(stays(image, &reason)),
            }
        }
        let heard = self.store.await_in_cri(&brought, HEARD_WITHIN);
        let mut said = vec![format!(
            "images: {} of {} carried over ({} blobs linked, {} copied)",
            brought.len(),
            chosen.len(),
            self.linked,
            self.sent
        )];
        // A name that CRI cannot parse was none of kubelet's.
        said.extend(heard.err());
        let lost = found.missing(choice).into_iter();
        said.extend(lost.map(|name| format!("{name} is not carried over: no image has this name")));
        said.extend(left);
        said.extend(
            found
                .faults
                .iter()
                .map(|fault| format!("names may be missing: {fault}")),
        );
        Ok(said)
    }

    /// The blobs of an image, all of them there and verified.
    fn fit(&self, image: &StoredImage) -> Result<Vec<(Blob, File)>, String> {
        let blobs = images::blobs_of(self.old, image)?.into_iter();
        let fit = blobs.map(|blob| {
            let file = self.verified(&blob)?;
            Ok((blob, file))
        });
        fit.collect()
    }

    /// What is linked already was verified before it was.
    fn verified(&self, blob: &Blob) -> Result<File, String> {
        let is_done = self.done.contains(&blob.digest) || is_linked(blob, &self.place(blob));
        match is_done {
            true => File::open(&blob.path).map_err(|error| format!("{}: {error}", blob.digest)),
            false => images::verified(&blob.path, &blob.digest),
        }
    }

    fn bring(&mut self, image: &StoredImage, blobs: &[(Blob, File)]) -> Result<(), String> {
        for (blob, file) in blobs {
            if self.done.contains(&blob.digest) {
                continue;
            }
            // Where it does not succeed, the bytes are sent.
            let _ = self.link(blob);
            let brought = self.store.blob(&BlobToBring {
                digest: &blob.digest,
                size: blob.size,
                file,
                children: &blob.children,
            })?;
            match brought {
                Brought::TakenOver => self.linked += 1,
                Brought::Sent => self.sent += 1,
                Brought::Known => {}
            }
            self.done.insert(blob.digest.clone());
        }
        for (name, labels) in &image.names {
            self.store.image(ImageToBring {
                name: name.clone(),
                labels: kept_labels(labels),
                digest: image.target.clone(),
                media_type: image.media_type.clone(),
                size: image.size,
            })?;
        }
        Ok(())
    }

    /// Where a blob is in the new content store.
    fn place(&self, blob: &Blob) -> PathBuf {
        images::store(self.new).join(blob.digest.trim_start_matches("sha256:"))
    }

    fn link(&self, blob: &Blob) -> std::io::Result<()> {
        let mut dir = std::fs::DirBuilder::new();
        dir.recursive(true).mode(0o755).create(images::store(self.new))?;
        hard_link(&blob.path, self.place(blob))
    }
}

fn is_linked(blob: &Blob, place: &Path) -> bool {
    let id = |path: &Path| {
        let stat = std::fs::symlink_metadata(path).ok()?;
        Some((stat.dev(), stat.ino()))
    };
    id(place).is_some() && id(place) == id(&blob.path)
}

/// Labels that lead to snapshots lead nowhere in the new root.
fn kept_labels(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    let kept = labels
        .iter()
        .filter(|(key, _)| !key.starts_with("containerd.io/gc."));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What is said of an image that is not whole.
pub(crate) fn stays(image: &StoredImage, reason: &str) -> String {
    format!("{} is not carried over: {reason}", image.name())
}
