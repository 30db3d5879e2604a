//! What kubelet keeps of block volumes beside the pod directories, on real loop devices.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nodemend_hostfs::Host;
use nodemend_pods::{LayoutOptions, LinkKind, layout};
use nodemend_procns::Census;

use crate::mounts::started;
use crate::node::{Node, Pod, bind, fingerprint, mended, mounted_below, refused};

/// A loop device and what is behind it, which goes with this. Another test may get its number when it is free.
struct Loop(PathBuf, String);

impl Loop {
    fn over(file: &Path) -> Self {
        let mut losetup = Command::new("losetup");
        let output = losetup.args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let node = String::from_utf8(output.stdout).unwrap().trim().into();
        let mut device = Self(node, String::new());
        device.1 = device.backing();
        device
    }

    fn is_attached(&self) -> bool {
        !self.1.is_empty() && self.backing() == self.1
    }

    fn backing(&self) -> String {
        let name = self.0.file_name().unwrap();
        let file = Path::new("/sys/block").join(name).join("loop/backing_file");
        fs::read_to_string(file).unwrap_or_default()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if self.is_attached() {
            let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
        }
    }
}

/// A volume of a CSI driver that two pods use, one of them dead.
struct Shared<'n> {
    dead: Pod<'n>,
    other: Pod<'n>,
    image: PathBuf,
    device: Loop,
    /// kubelet's lock on the dead pod's device.
    lock: Loop,
}

const DEVICES: &str = "plugins/kubernetes.io/csi/volumeDevices";

fn of(pod: &Pod<'_>) -> [PathBuf; 2] {
    let devices = pod.node.root.join(DEVICES);
    ["pv-1/dev", "publish/pv-1"].map(|dir| devices.join(dir).join(pod.uid.as_str()))
}

impl<'n> Shared<'n> {
    fn on(node: &'n Node) -> Self {
        let image = node.behind.join("disk");
        fs::write(&image, vec![7; 1 << 20]).unwrap();
        let device = Loop::over(&image);
        let (dead, other) = (node.pod(1), node.pod(2));
        for pod in [&dead, &other] {
            for at in of(pod) {
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::write(&at, "").unwrap();
                bind(&device.0, &at);
            }
            let dir = pod.path.join("volumeDevices/kubernetes.io~csi");
            fs::create_dir_all(&dir).unwrap();
            symlink(&of(pod)[1], dir.join("pv-1")).unwrap();
        }
        let lock = Loop::over(&of(&dead)[0]);
        let devices = node.root.join(DEVICES);
        for (file, text) in [
            ("pv-1/data/vol_data.json", "{}"),
            ("staging/pv-1/device", "the driver's"),
        ] {
            fs::create_dir_all(devices.join(file).parent().unwrap()).unwrap();
            fs::write(devices.join(file), text).unwrap();
        }
        Self {
            dead,
            other,
            image,
            device,
            lock,
        }
    }

    /// Nothing of it has changed.
    fn is_whole(&self) {
        assert!(self.dead.is_there());
        assert!(of(&self.dead).iter().all(|at| is_device(at)));
        assert!(self.lock.is_attached());
    }
}

fn is_device(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_block_device())
}

#[test]
fn t23_a_survey_lists_what_a_block_volume_has_elsewhere_with_its_pod() {
    let node = Node::new();
    let shared = Shared::on(&node);
    let in_tree = in_tree_link(&shared);
    let host = Host::local();
    let options = LayoutOptions {
        kubelet_root: Some(node.root.clone()),
        ..LayoutOptions::default()
    };
    let layout = layout(&host, &options, &Census::take(&host).unwrap()).unwrap();
    let name = shared.device.0.file_name().unwrap();
    let number = fs::read_to_string(Path::new("/sys/block").join(name).join("dev")).unwrap();
    for pod in [&shared.dead, &shared.other] {
        let found = layout.pods.iter().find(|found| found.uid == pod.uid).unwrap();
        assert_eq!(found.unread, Vec::<String>::new());
        let mut expected: Vec<_> = of(pod).into();
        expected.extend((pod.uid == shared.dead.uid).then(|| in_tree.clone()));
        expected.sort();
        let paths: Vec<_> = found.outside.iter().map(|link| link.path.clone()).collect();
        assert_eq!(paths, expected);
        for link in &found.outside {
            let (major, minor) = link.device.unwrap();
            assert_eq!(format!("{major}:{minor}\n"), number, "{link:?}");
            let what = match link.path == in_tree {
                true => LinkKind::Symlink(shared.device.0.clone()),
                false => LinkKind::Mounted,
            };
            assert_eq!(link.what, what);
            assert_eq!(
                link.is_published(),
                link.path.starts_with(node.root.join(DEVICES).join("publish"))
            );
        }
    }
}

/// As old kubelets made it.
fn in_tree_link(shared: &Shared<'_>) -> PathBuf {
    let dir = shared
        .dead
        .node
        .root
        .join("plugins/kubernetes.io~local-volume/volumeDevices/pv-2");
    fs::create_dir_all(&dir).unwrap();
    let link = dir.join(shared.dead.uid.as_str());
    symlink(&shared.device.0, &link).unwrap();
    link
}

#[test]
fn t23_what_a_dead_pod_has_of_a_block_volume_goes_and_the_volume_and_other_pods_keep_theirs() {
    let node = Node::new();
    let shared = Shared::on(&node);
    let in_tree = in_tree_link(&shared);
    let said = mended(&shared.dead.purge());
    assert!(
        said.contains(&format!("detached {}", shared.lock.0.display())),
        "{said}"
    );
    let [dev, publish] = of(&shared.dead);
    for path in [&dev, &publish, &in_tree] {
        assert!(said.contains(&format!("removed {}", path.display())), "{said}");
        assert!(fs::symlink_metadata(path).is_err(), "{path:?}");
    }
    assert!(said.contains("of which its driver was not told"), "{said}");
    assert!(!shared.lock.is_attached());
    assert!(!shared.dead.is_there() && shared.other.is_there());
    assert!(of(&shared.other).iter().all(|at| is_device(at)));
    assert_eq!(mounted_below(&node.root.join("plugins")).len(), 2);
    let devices = node.root.join(DEVICES);
    assert!(devices.join("pv-1/data/vol_data.json").exists());
    assert!(devices.join("staging/pv-1/device").exists());
    assert!(
        shared.device.backing().contains("disk"),
        "the volume is still attached"
    );
    assert_eq!(fs::read(&shared.image).unwrap(), vec![7; 1 << 20]);
    let journal = fs::read_to_string(node.state.path().join("journal.jsonl")).unwrap();
    let steps: Vec<serde_json::Value> = journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let steps: Vec<&str> = steps.iter().map(|line| line["step"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        [
            "detach",
            "unmount",
            "removeFile",
            "unmount",
            "removeFile",
            "removeLink",
            "removeTree"
        ]
    );
}

#[test]
fn t23_a_device_that_somebody_has_open_keeps_the_pod_whole() {
    let node = Node::new();
    let shared = Shared::on(&node);
    let user = fs::File::open(&shared.lock.0).unwrap();
    refused(
        &shared.dead.purge(),
        &format!("process {} has it open", std::process::id()),
    );
    shared.is_whole();
    drop(user);
    let published = &of(&shared.dead)[1];
    let user = fs::File::open(published).unwrap();
    let said = format!("process {} has {} open", std::process::id(), published.display());
    refused(&shared.dead.purge(), &said);
    shared.is_whole();
    drop(user);
    mended(&shared.dead.purge());
}

#[test]
fn t23_what_is_no_device_in_the_place_of_one_keeps_the_pod_whole() {
    let node = Node::new();
    let pod = node.pod(1);
    let [dev, publish] = of(&pod);
    fs::create_dir_all(dev.parent().unwrap()).unwrap();
    fs::write(&dev, "somebody wrote to the device when it was not there").unwrap();
    refused(&pod.purge(), "is a file with data, which is not kubelet's");
    fs::remove_file(&dev).unwrap();
    fs::create_dir_all(&publish).unwrap();
    refused(&pod.purge(), "is a directory, which is not kubelet's");
    bind(&node.data("pv"), &publish);
    let before = fingerprint(&node.behind);
    refused(&pod.purge(), "is no block device");
    assert_eq!(fingerprint(&node.behind), before);
    assert!(pod.is_there());
}

#[test]
fn t27_a_namespace_with_a_copy_of_its_own_of_the_device_keeps_the_pod_whole() {
    let node = Node::new();
    let shared = Shared::on(&node);
    let other = started(
        "exec unshare -m --propagation private sh -c 'echo ready; exec sleep 600'",
        &[],
    );
    refused(&shared.dead.purge(), &format!("of process {}", other.0.id()));
    shared.is_whole();
    drop(other);
    mended(&shared.dead.purge());
}

#[test]
fn t5_a_device_that_only_another_namespace_has_keeps_the_pod() {
    let node = Node::new();
    let pod = node.pod(1);
    let [dev, _] = of(&pod);
    fs::create_dir_all(dev.parent().unwrap()).unwrap();
    fs::write(&dev, "").unwrap();
    let image = node.behind.join("disk");
    fs::write(&image, vec![7; 1 << 20]).unwrap();
    let device = Loop::over(&image);
    let other = started(
        r#"exec unshare -m --propagation private sh -c 'mount --bind "$1" "$2"; echo ready; exec sleep 600' sh "$1" "$2""#,
        &[&device.0, &dev],
    );
    refused(&pod.purge(), &format!("of process {}", other.0.id()));
    assert!(dev.exists() && pod.is_there());
    drop(other);
    mended(&pod.purge());
    assert!(!dev.exists());
}
