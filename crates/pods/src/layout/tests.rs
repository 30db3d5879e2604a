//! What was mounted after the mount table was read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test"
)]
#![allow(clippy::panic, reason = "so is a panic")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, mpsc};
use std::thread;

use nix::mount::{MsFlags, mount};
use nodemend_lab::disk::Ground;

use super::*;
use crate::volume::Content;

const UID: &str = "0c9a8c4e-3a51-4c0e-9d1c-5a2f6f0f6b11";

/// Longer than any of these looks takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// The device of a FUSE file system whose requests nobody reads. When it is closed the kernel ends them all, and whoever
/// waits goes on.
#[derive(Clone, Default)]
struct Dead(Arc<Mutex<Option<File>>>);

impl Dead {
    fn mount(&self, at: &Path) {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let (source, kind) = (Some("dead"), Some("fuse"));
        mount(source, at, kind, MsFlags::empty(), Some(options.as_str())).unwrap();
        *lock(&self.0) = Some(device);
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        lock(&self.0).take();
    }
}

/// Walks one pod, with a dead file system in it of which the mount table that was read did not tell. On a thread, so that
/// a look that waits for it is a failed test and not one without an end.
fn surprised(below: &str) -> Box<Draft> {
    let (dead, below) = (Dead::default(), below.to_owned());
    let (done, answer) = mpsc::channel();
    let worker = dead.clone();
    thread::spawn(move || done.send(walked(&worker, &below)));
    answer.recv_timeout(DEADLINE).expect("the look did not end")
}

fn walked(dead: &Dead, below: &str) -> Box<Draft> {
    let ground = Ground::enter().unwrap();
    // In memory: a disk would need a loop device, and those of the machine may be stuck.
    let path = ground.directory().unwrap();
    let at = path.join("pods").join(UID).join(below);
    std::fs::create_dir_all(&at).unwrap();
    let found = FoundRoot {
        path,
        known_by: "a test".to_owned(),
    };
    let root = Root::open(&Host::local(), &found).unwrap().unwrap();
    let sight = Sight {
        mounts: Arc::new(vec![Mutex::default()]),
        own: true,
        ..Sight::default()
    };
    dead.mount(&at);
    let options = LayoutOptions::default();
    let walked = walk_all(&sight, root, vec![UID.parse().unwrap()], &options).unwrap();
    match walked.pods.into_iter().next().unwrap().1 {
        Walked::Pod(draft) => draft,
        other @ (Walked::Stranger(_) | Walked::Gone) => panic!("{other:?}"),
    }
}

#[test]
fn t9_a_volume_that_was_mounted_meanwhile_is_refused_by_the_kernel_and_not_asked() {
    for below in [
        "volumes/kubernetes.io~nfs/share",
        "volumes/kubernetes.io~csi/pvc/mount",
    ] {
        let draft = surprised(below);
        assert_eq!(draft.unread, Vec::<String>::new());
        assert_eq!(draft.volumes[0].content, Content::Mounted);
    }
    let draft = surprised("volumes/kubernetes.io~empty-dir/x/deep");
    assert!(matches!(
        draft.volumes[0].content,
        Content::Files { entries: 1, .. }
    ));
}

#[test]
fn t9_a_pod_directory_that_does_not_answer_is_left_behind_and_says_so() {
    let start = Instant::now();
    let draft = surprised("volumes/vendor~plugin");
    assert_eq!(draft.unread, ["no answer within 2 s"]);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}
