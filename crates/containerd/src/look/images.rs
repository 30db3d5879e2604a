//! The images of a root: their names from the metadata database, their blobs from the content store.

mod blobs;
mod records;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use blobs::{Blob, store, verified};

/// The images of kubelet: those in containerd's namespace `k8s.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Every image that has a name.
    pub images: Vec<StoredImage>,
    /// Parts of the database that cannot be read: names may be missing.
    pub faults: Vec<String>,
    /// Why no name is known. The blobs may be there: nothing says what they are.
    pub unnamed: Option<String>,
}

/// An image: what its names lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredImage {
    /// Its records: by tag, by digest and by the id that CRI uses, with their labels.
    pub names: BTreeMap<String, BTreeMap<String, String>>,
    /// What they lead to: a manifest or an index, as `sha256:…`.
    pub target: String,
    /// The media type of the target.
    pub media_type: String,
    /// The size of the target in bytes.
    pub size: u64,
    /// Its blobs by digest, with their sizes in bytes, if all of them are there.
    pub blobs: BTreeMap<String, u64>,
    /// What is missing. An image that is not whole cannot be unpacked.
    pub lacks: Option<String>,
}

/// Which images are carried over into the new root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ImageChoice {
    /// None: each is pulled anew.
    #[default]
    None,
    /// All that are whole (`--keep-content`).
    All,
    /// Those with these names (`--keep-images`).
    Named(Vec<String>),
}

/// The images of the root at a path: containerd may use it, be stopped, or have another root by now. Verifies manifests, and
/// of layers that they are there with the right size. Changes nothing, and takes no lock.
pub fn images(root: &Path) -> Images {
    let records = match records::read(&database(root)) {
        Ok(records) => records,
        Err(reason) => {
            return Images {
                unnamed: Some(reason),
                ..Images::default()
            };
        }
    };
    let mut targets: HashMap<String, StoredImage> = HashMap::new();
    for record in records.records {
        let image = targets
            .entry(record.digest.clone())
            .or_insert_with(|| StoredImage {
                names: BTreeMap::new(),
                target: record.digest,
                media_type: record.media_type,
                size: record.size,
                blobs: BTreeMap::new(),
                lacks: None,
            });
        image.names.insert(record.name, record.labels);
    }
    let mut images: Vec<StoredImage> = targets.into_values().collect();
    let store = store(root);
    for image in &mut images {
        match blobs::of(&store, image) {
            Ok(blobs) => image.blobs = blobs.into_iter().map(|blob| (blob.digest, blob.size)).collect(),
            Err(reason) => image.lacks = Some(reason),
        }
    }
    images.sort_by(|one, other| one.name().cmp(other.name()));
    Images {
        images,
        faults: records.faults,
        unnamed: None,
    }
}

/// The blobs of an image, each before those that lead to it.
///
/// # Errors
/// What is missing.
pub(crate) fn blobs_of(root: &Path, image: &StoredImage) -> Result<Vec<Blob>, String> {
    blobs::of(&store(root), image)
}

fn database(root: &Path) -> PathBuf {
    root.join("io.containerd.metadata.v1.bolt/meta.db")
}

impl Images {
    /// Those that are chosen, whole or not.
    pub fn chosen<'i>(&'i self, choice: &ImageChoice) -> Vec<&'i StoredImage> {
        let wanted = |image: &&StoredImage| match choice {
            ImageChoice::None => false,
            ImageChoice::All => true,
            ImageChoice::Named(names) => names.iter().any(|name| image.names.contains_key(name)),
        };
        self.images.iter().filter(wanted).collect()
    }

    /// The names that were asked for, and that no image has.
    pub fn missing<'c>(&self, choice: &'c ImageChoice) -> Vec<&'c str> {
        let ImageChoice::Named(names) = choice else {
            return Vec::new();
        };
        let has = |name: &&String| self.images.iter().any(|image| image.names.contains_key(*name));
        names
            .iter()
            .filter(|name| !has(name))
            .map(String::as_str)
            .collect()
    }
}

impl StoredImage {
    /// What people call it: a tag rather than a digest or an id.
    pub fn name(&self) -> &str {
        let is_tag = |name: &&String| !name.contains('@') && !name.starts_with("sha256:");
        let name = self.names.keys().find(is_tag);
        name.or(self.names.keys().next())
            .map_or(&self.target, |name| name)
    }
}

/// Bytes of the blobs of several images; those that images share count once.
pub(crate) fn bytes<'i>(images: impl IntoIterator<Item = &'i StoredImage>) -> u64 {
    let blobs: BTreeSet<(&String, &u64)> = images.into_iter().flat_map(|image| &image.blobs).collect();
    blobs.into_iter().map(|(_, size)| size).sum()
}

#[cfg(test)]
pub(crate) mod tests;
