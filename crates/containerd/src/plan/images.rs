//! What a plan says of images.

use super::{Reason, Refusal};
use crate::look::images::bytes;
use crate::look::{ImageChoice, Images, Look, StoredImage};
use crate::steps::images::stays;

/// Bytes that are verified in a second: from a cache, and from a slow disk.
const VERIFIED_A_SECOND: (u64, u64) = (400 << 20, 50 << 20);

/// Why the chosen images cannot be carried over.
pub(super) fn refusals(look: &Look, choice: &ImageChoice) -> Vec<Refusal> {
    let (ImageChoice::All | ImageChoice::Named(_), Some(_)) = (choice, &look.root) else {
        return Vec::new();
    };
    let Some(images) = &look.images else {
        return vec![refusal("nobody looked at the images".to_owned(), "run again")];
    };
    if let Some(why) = &images.unnamed {
        return vec![refusal(
            format!("the names of the images are lost, and nothing else tells what the blobs are: {why}"),
            "leave --keep-content and --keep-images out: each image is pulled anew, or imported after step 6",
        )];
    }
    let missing = images.missing(choice).into_iter();
    let mut refusals: Vec<Refusal> = missing
        .map(|name| {
            let doubt = images.faults.first();
            let doubt = doubt.map_or(String::new(), |fault| format!(" that can be read ({fault})"));
            refusal(
                format!("no image has the name {name}{doubt}"),
                "crictl images lists them on a node that works; leave the name out",
            )
        })
        .collect();
    if let ImageChoice::Named(_) = choice {
        let lacking = images.chosen(choice).into_iter();
        refusals.extend(lacking.filter_map(|image| {
            let lacks = image.lacks.as_ref()?;
            Some(refusal(
                stays(image, lacks),
                "leave the name out: the image is pulled anew",
            ))
        }));
    }
    refusals
}

fn refusal(detail: String, help: &str) -> Refusal {
    Refusal {
        reason: Reason::ImagesNotKept,
        detail,
        help: help.to_owned(),
    }
}

/// What is carried over, and how many seconds that takes, at least and at most.
pub(super) fn carried(look: &Look, choice: &ImageChoice) -> (Vec<String>, (u64, u64)) {
    let Some(images) = look.images.as_ref().filter(|_| *choice != ImageChoice::None) else {
        return (Vec::new(), (0, 0));
    };
    let chosen = images.chosen(choice);
    let (whole, lacking): (Vec<&StoredImage>, Vec<&StoredImage>) =
        chosen.into_iter().partition(|image| image.lacks.is_none());
    let bytes = bytes(whole.iter().copied());
    let mut said = vec![format!(
        "{} of {} images are carried over: {} MiB are verified and linked, and unpacked when a container needs them",
        whole.len(),
        images.images.len(),
        bytes.div_ceil(1 << 20)
    )];
    said.extend(lost(images, &lacking));
    let (fast, slow) = VERIFIED_A_SECOND;
    (said, (bytes / fast, bytes.div_ceil(slow)))
}

fn lost<'i>(images: &'i Images, lacking: &'i [&StoredImage]) -> impl Iterator<Item = String> + 'i {
    let stays = lacking
        .iter()
        .map(|image| stays(image, image.lacks.as_deref().unwrap_or("not whole")));
    let faults = images.faults.iter();
    stays.chain(faults.map(|fault| format!("names may be missing: {fault}")))
}
