//! Pod directories that a script would have got wrong: each trap of the field notes that needs a node, by its number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nodemend_lab::kubelet::{self, Answer, Checkpoint, Era, Kubelet, Phase, Pod};
use nodemend_lab::pods::{Csi, LOCAL_DISKS, Mounted, PodDir, PodScene, Store, Volume};
use nodemend_lab::tool::{Item, Report, outside};

const PURGE: &str = "--apply --yes --yes --purge --accept-ephemeral";

/// Kept by the lab outside of everything that a tool may touch.
const QUARANTINE: &str = "/var/lib/kubelet/.nodemend-quarantine";

fn purge(scene: &PodScene) -> Report {
    scene.mend(PURGE).unwrap().ended(0).unwrap()
}

fn item(report: &Report, dir: &PodDir<'_>) -> Item {
    let found = report.item(&dir.pod.uid);
    assert!(found.is_some(), "{} is not in {report:?}", dir.pod.uid);
    found.unwrap().clone()
}

/// Purges, and proves that this directory went and nothing else changed.
fn only_goes(scene: &PodScene, dir: &PodDir<'_>) -> Report {
    let before = scene.seen(&dir.stores).unwrap();
    let report = purge(scene);
    assert_eq!(report.with("orphan").join(" "), dir.pod.uid, "{report:?}");
    assert!(!dir.exists(), "{report:?}");
    assert!(scene.node.mounts_below(&dir.path).unwrap().is_empty());
    scene.same(&before).unwrap();
    report
}

/// Purges, and proves that nothing changed at all; what is said of this directory, which has this verdict.
fn nothing_goes(scene: &PodScene, dir: &PodDir<'_>, verdict: &str) -> Item {
    let whole = [dir.stores.as_slice(), &[Store::Tree(dir.path.clone())]].concat();
    let before = scene.seen(&whole).unwrap();
    let mounts = scene.node.mounts().unwrap();
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    assert!(!report.changed, "{report:?}");
    let found = item(&report, dir);
    assert_eq!(found.verdict, verdict, "{found:?}");
    scene.same(&before).unwrap();
    assert_eq!(scene.node.mounts().unwrap(), mounts);
    found
}

/// The files in the quarantine with that content.
fn quarantined(scene: &PodScene, content: &str) -> Vec<String> {
    let grep = format!("grep -rl '{content}' {QUARANTINE} || true");
    let found = scene.node.shell(&grep).unwrap();
    found.lines().map(str::to_owned).collect()
}

#[test]
fn t01_a_bind_of_the_same_file_system_is_unmounted_and_never_deleted_through() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let leaf = dir.volume("one-pv", &Volume::Local).unwrap();
    dir.subpath("one-pv", 0, &leaf.join("sub")).unwrap();
    // hostPath: in no directory but that of subpaths.
    scene
        .node
        .write(Path::new(LOCAL_DISKS).join("host/data"), "of the host\n")
        .unwrap();
    dir.subpath("host", 0, &Path::new(LOCAL_DISKS).join("host"))
        .unwrap();
    dir.stores.push(Store::Tree(LOCAL_DISKS.into()));
    only_goes(&scene, &dir);
}

#[test]
fn t02_every_mount_of_a_stack_comes_off_before_anything_is_removed() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let leaf = dir.volume("stacked-pv", &Volume::Local).unwrap();
    dir.stack(&leaf).unwrap();
    dir.stack(&leaf).unwrap();
    let scratch = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    dir.stack(&scratch).unwrap();
    only_goes(&scene, &dir);
}

#[test]
fn t03_a_file_as_a_subpath_is_unmounted_and_its_source_is_whole() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let leaf = dir.volume("file-pv", &Volume::Local).unwrap();
    dir.subpath("file-pv", 0, &leaf.join("data")).unwrap();
    dir.subpath("config", 3, &leaf.join("sub/below")).unwrap();
    only_goes(&scene, &dir);
}

#[test]
fn t04_mounts_deep_in_an_empty_dir_come_off_first() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let scratch = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    dir.nest_bind(&scratch).unwrap();
    dir.nest_overlay(&scratch).unwrap();
    only_goes(&scene, &dir);
}

#[test]
fn t05_a_mount_that_only_another_namespace_has_keeps_the_pod() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let at = dir.path.join("volumes/kubernetes.io~nfs/private");
    let pid = dir.elsewhere(&at).unwrap();
    let kept = nothing_goes(&scene, &dir, "live");
    assert!(kept.is_known_to("mounts elsewhere"), "{kept:?}");
    let seen = scene.node.mounts_seen_by(pid).unwrap();
    assert!(seen.iter().any(|mount| mount.at == at), "it was not torn out");
    // A removal by its name would have succeeded, and torn it out.
    scene.node.kill(&[pid]).unwrap();
    dir.stores.retain(|store| !matches!(store, Store::SeenBy(..)));
    only_goes(&scene, &dir);
}

#[test]
fn t05_a_container_with_the_pods_hosts_file_keeps_the_pod() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.etc_hosts().unwrap();
    dir.hosts_in_a_container().unwrap();
    let kept = nothing_goes(&scene, &dir, "live");
    assert!(kept.is_known_to("mounts elsewhere"), "{kept:?}");
}

#[test]
fn t06_a_mount_in_what_goes_to_the_quarantine_does_not_move_along() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let only = dir.volume("only-pv", &Volume::Csi(Csi::unmounted())).unwrap();
    dir.nest_bind(&only).unwrap();
    only_goes(&scene, &dir);
    assert_eq!(quarantined(&scene, "the only copy").len(), 1);
    assert!(scene.node.mounts_below(QUARANTINE).unwrap().is_empty());
}

#[test]
fn t07_a_directory_that_somebody_works_in_stays() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let leaf = dir.volume("held-pv", &Volume::Local).unwrap();
    let pid = dir.hold_open(&leaf.join("data")).unwrap();
    let kept = nothing_goes(&scene, &dir, "live");
    assert!(kept.is_known_to("processes"), "{kept:?}");
    scene.node.kill(&[pid]).unwrap();
    let pid = dir.work_in(&leaf).unwrap();
    let kept = nothing_goes(&scene, &dir, "live");
    assert!(kept.is_known_to("processes"), "{kept:?}");
    scene.node.kill(&[pid]).unwrap();
    let pid = dir.process().unwrap();
    let kept = nothing_goes(&scene, &dir, "live");
    assert!(kept.is_known_to("processes in pod cgroups"), "{kept:?}");
    scene.node.kill(&[pid]).unwrap();
    only_goes(&scene, &dir);
}

#[test]
fn t08_what_cannot_be_unmounted_ends_the_purge_of_its_pod_and_no_other() {
    let scene = PodScene::new().unwrap();
    let mut held = scene.orphan("held").unwrap();
    let leaf = held.volume("held-pv", &Volume::Local).unwrap();
    // Nothing in /proc has it open: the kernel itself holds the file below the mount.
    let nested = leaf.join("sub/nested");
    scene
        .node
        .shell(&format!(
            "mkdir -p {0} && mount -t tmpfs tmpfs {0}",
            nested.display()
        ))
        .unwrap();
    let pid = scene
        .node
        .in_own_mounts(&format!("mount --bind {LOCAL_DISKS}/held-pv/sub /mnt"))
        .unwrap();
    let mut free = scene.orphan("free").unwrap();
    free.volume("free-pv", &Volume::Local).unwrap();
    let before = scene.seen(&free.stores).unwrap();
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    assert!(!free.exists(), "{report:?}");
    let data = scene
        .node
        .read(Path::new(LOCAL_DISKS).join("held-pv/data"))
        .unwrap();
    assert!(data.starts_with("the data of"));
    scene.same(&before).unwrap();
    scene.node.kill(&[pid]).unwrap();
}

#[test]
fn t09_nobody_waits_for_a_mount_that_hangs_or_is_dead() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let scratch = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    let holder = dir.hang(&scratch.join("hung")).unwrap();
    let mut leaf = scene.orphan("leaf").unwrap();
    leaf.hang(&leaf.path.join("volumes/kubernetes.io~nfs/dead-server"))
        .unwrap();
    // The same in a pod that lives.
    let live = scene.node.pod_dir(&scene.live).unwrap().path;
    let hung = live.join("volumes/kubernetes.io~nfs/hung");
    scene.node.shell(&format!("mkdir -p {}", hung.display())).unwrap();
    let of_live = scene.node.hang_at(&hung).unwrap();

    let begun = Instant::now();
    let planned = scene.mend("--purge").unwrap().ended(0).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(planned.item(&scene.live.uid).unwrap().verdict, "live");
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    for dir in [&dir, &leaf] {
        let found = item(&report, dir);
        let gone = !dir.exists() && found.outcome() == "mended";
        let kept = dir.exists() && (!found.because().is_empty() || found.outcome() == "refused");
        assert!(gone || kept, "{found:?}");
    }
    let still = scene.node.mounts_below(&hung).unwrap();
    assert_eq!(still.len(), 1, "the live pod's is still mounted");
    scene.node.kill(&[holder, of_live]).unwrap();
    let dead = scene.mend("--purge").unwrap().ended(0).unwrap();
    assert_eq!(dead.item(&scene.live.uid).unwrap().verdict, "live");
}

#[test]
fn t10_an_unmounted_volume_with_data_is_quarantined_and_can_be_put_back() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    // After a reboot the pod ran on the bare directory below the mount that was to be.
    let nfs = dir.make("volumes/kubernetes.io~nfs/pv").unwrap();
    scene
        .node
        .write(nfs.join("written-while-unmounted"), "the only copy of nfs\n")
        .unwrap();
    let local = dir.make("volumes/kubernetes.io~local-volume/pv").unwrap();
    scene
        .node
        .write(local.join("deep/file"), "the only copy of local\n")
        .unwrap();
    dir.volume("only-pv", &Volume::Csi(Csi::unmounted())).unwrap();
    let planned = scene.mend("").unwrap().ended(0).unwrap();
    assert_eq!(item(&planned, &dir).verdict, "orphan");
    let refused = scene.mend("--apply --yes").unwrap().ended(4).unwrap();
    assert_eq!(
        item(&refused, &dir).outcome(),
        "refused",
        "the weakest repair does not touch it"
    );
    only_goes(&scene, &dir);
    for content in ["the only copy$", "the only copy of nfs", "the only copy of local"] {
        assert_eq!(quarantined(&scene, content).len(), 1, "{content}");
    }
    // kubelet makes the directory again for a pod of the same uid.
    scene.node.pod_dir(&dir.pod).unwrap();
    scene
        .node
        .ran(&["mend-pods", "restore", &dir.pod.uid])
        .unwrap()
        .exited(0)
        .unwrap();
    let back = scene.node.read(nfs.join("written-while-unmounted")).unwrap();
    assert_eq!(back, "the only copy of nfs\n");
    assert!(quarantined(&scene, "the only copy").is_empty());
}

#[test]
fn t11_the_record_of_a_volume_that_is_still_staged_stays() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let csi = Csi::default();
    let leaf = dir.volume("staged-pv", &Volume::Csi(csi.clone())).unwrap();
    dir.unmount(&leaf).unwrap();
    let before = scene.seen(&dir.stores).unwrap();
    for line in ["--apply --yes", PURGE] {
        let report = scene.mend(line).unwrap().report().unwrap();
        let found = item(&report, &dir);
        assert_ne!(found.outcome(), "mended", "{found:?}");
        scene.node.read(leaf.with_file_name("vol_data.json")).unwrap();
        scene.same(&before).unwrap();
    }
    let staged = csi.global_mount("staged-pv").unwrap();
    dir.unmount(&staged).unwrap();
    scene.mend("--apply --yes").unwrap().ended(0).unwrap();
    assert!(scene.node.read(leaf.with_file_name("vol_data.json")).is_err());
    assert!(scene.node.housekeeping(Era::V1_30).unwrap().is_clean());
    assert!(!dir.exists());
}

#[test]
fn t12_a_volume_that_a_living_pod_shares_stays_mounted_there() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    // The same volumes as those of the living, by other paths.
    for (name, volume) in Volume::all() {
        if matches!(volume, Volume::Local | Volume::Nfs | Volume::FlexMounted) {
            dir.volume(name, &volume).unwrap();
        }
    }
    let staged = Csi::default().global_mount("csi-pv").unwrap();
    let mounted = scene.node.mounts_below(&staged).unwrap();
    let mut of_csi = scene.orphan("shares-csi").unwrap();
    of_csi.volume("csi-pv", &Volume::Csi(Csi::default())).unwrap();
    let before = scene
        .seen(&[dir.stores.clone(), of_csi.stores.clone()].concat())
        .unwrap();
    scene.mend(PURGE).unwrap().report().unwrap();
    assert!(!dir.exists());
    scene.same(&before).unwrap();
    assert_eq!(
        scene.node.mounts_below(&staged).unwrap(),
        mounted,
        "the global mount is not ours"
    );
}

#[test]
fn t13_a_static_pod_is_known_by_kubelet_only_and_stays_without_it() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let report = scene.mend("").unwrap().ended(0).unwrap();
    assert_eq!(report.item(&scene.static_pod.uid).unwrap().verdict, "live");
    // The API server knows another uid.
    node.start_api_server().unwrap();
    node.kubelet_answers(Answer::Failed).unwrap();
    let unlisted = node.pod_dir(&Pod::of_manifest("edited")).unwrap();
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    assert_ne!(item(&report, &unlisted).verdict, "orphan");
    assert_ne!(report.item(&scene.static_pod.uid).unwrap().verdict, "orphan");
    assert!(unlisted.exists());
    // kubelet itself has all of them, and this is none.
    node.kubelet_answers(Answer::Right).unwrap();
    assert_eq!(
        item(&scene.mend("").unwrap().report().unwrap(), &unlisted).verdict,
        "orphan"
    );
}

#[test]
fn t14_a_uid_that_comes_back_between_two_looks_is_alive() {
    let mut scene = PodScene::new().unwrap();
    let pod = Pod::of_manifest("comes-back");
    let path = {
        let mut dir = scene.node.pod_dir(&pod).unwrap();
        dir.volume("scratch", &Volume::EmptyDir).unwrap();
        dir.path
    };
    let line = format!("{} {PURGE} --grace 0s --settle 4s --output json", PodScene::TOOL);
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = scene.node.command(words[0]);
    command.args(&words[1..]).stdout(std::process::Stdio::piped());
    let running = command.spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    scene.also_known(&pod).unwrap();
    let output = running.wait_with_output().unwrap();
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.item(&pod.uid).unwrap().verdict, "live", "{report:?}");
    assert!(
        scene
            .node
            .path(path.join("volumes/kubernetes.io~empty-dir/scratch/scratch"))
            .exists()
    );
}

#[test]
fn t15_t16_a_pod_that_waits_for_volumes_and_one_that_has_ended_are_kubelets() {
    let scene = PodScene::new().unwrap();
    let before = scene.seen(&[]).unwrap();
    let evicted = Pod::new("evicted").unwrap().in_phase(Phase::Failed);
    let mut known = vec![scene.live.clone(), scene.pending.clone(), scene.completed.clone()];
    known.extend([scene.static_pod.clone(), evicted.clone()]);
    let mut dir = scene.node.pod_dir(&evicted).unwrap();
    dir.volume("scratch", &Volume::EmptyDir).unwrap();
    scene.node.list_pods(&known).unwrap();
    let report = purge(&scene);
    assert!(!report.changed);
    for pod in [&scene.pending, &scene.completed, &evicted] {
        let found = report.item(&pod.uid).unwrap();
        assert_eq!(found.verdict, "live");
        assert!(found.is_known_to("kubelet /pods"), "{found:?}");
    }
    // kubelet's own answer is newer than what it wrote down, which is told all the same.
    for checkpoint in Checkpoint::ALL {
        let noted = scene.orphan("noted").unwrap();
        scene.node.checkpoint(checkpoint, &[&noted.pod.uid]).unwrap();
        let found = item(&purge(&scene), &noted);
        let said = found.said_by("kubelet checkpoints").unwrap();
        assert!(
            said.claim == "unknown" && said.detail.contains(checkpoint.file()),
            "{found:?}"
        );
        assert!(!noted.exists(), "{found:?}");
    }
    scene.same(&before).unwrap();
}

#[test]
fn t17_an_empty_list_while_pods_run_is_no_answer() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.volume("pv", &Volume::Local).unwrap();
    scene.node.kubelet_answers(Answer::Empty).unwrap();
    nothing_goes(&scene, &dir, "undecided");
    scene.node.kubelet_answers(Answer::Right).unwrap();
    scene.node.wipe_metadata().unwrap();
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    assert_eq!(
        report.item(&scene.live.uid).unwrap().verdict,
        "live",
        "it runs, and kubelet knows it"
    );
}

#[test]
fn t18_a_root_by_another_name_is_the_same_root() {
    let scene = PodScene::with(Kubelet {
        root: "/var/lib/link-to-kubelet".to_owned(),
        ..Kubelet::default()
    });
    // The stand-in makes its root's `pods`: here that is a directory of its own, so the link comes first.
    let scene = scene.unwrap();
    let node = &scene.node;
    node.shell("rm -rf /var/lib/link-to-kubelet && ln -s /var/lib/kubelet /var/lib/link-to-kubelet")
        .unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.volume("pv", &Volume::Local).unwrap();
    node.see_kubelet_root_at("/run/lab/secure/kubelet").unwrap();
    let before = scene.seen(&dir.stores).unwrap();
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    let found = item(&report, &dir);
    let twice = node.mounts_below("/run/lab/secure/kubelet/pods").unwrap();
    let gone = !dir.exists()
        && !twice
            .iter()
            .any(|mount| mount.at.to_string_lossy().contains(&dir.pod.uid));
    assert!(
        gone || dir.exists() && !found.because().is_empty() || found.outcome() == "refused",
        "{found:?}"
    );
    scene.same(&before).unwrap();
}

#[test]
fn t19_names_that_are_no_uid_are_nobodys_and_a_log_only_narrows() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let pods = Path::new(kubelet::PODS);
    node.write(pods.join("not-a-uid/volumes/kubernetes.io~nfs/pv/data"), "data\n")
        .unwrap();
    let strange = Pod::new("link").unwrap();
    node.write("/var/lib/kubelet/aside/data", "data\n").unwrap();
    symlink("/var/lib/kubelet/aside", node.path(pods.join(&strange.uid))).unwrap();
    let strangers = [
        Store::Tree(pods.join("not-a-uid")),
        Store::Tree(pods.join(&strange.uid)),
        Store::Tree("/var/lib/kubelet/aside".into()),
    ];
    let (mut named, mut other) = (scene.orphan("named").unwrap(), scene.orphan("other").unwrap());
    named.volume("scratch", &Volume::EmptyDir).unwrap();
    other.volume("scratch", &Volume::EmptyDir).unwrap();
    let before = scene
        .seen(&[strangers.as_slice(), &[Store::Tree(other.path.clone())]].concat())
        .unwrap();
    let live = &scene.live.uid;
    let log = format!(
        "Orphaned pod \"\" found, but volume paths are still present on disk.\n\
         Orphaned pod \"..\" found, but volume paths are still present on disk.\n\
         Orphaned pod \"{live}\" found, but volume paths are still present on disk.\n\
         E0105 kubelet_volumes.go:263] \"x\" err=\"orphaned pod \\\"{}\\\" found, but error not a directory occurred\" numErrs=1\n",
        named.pod.uid
    );
    node.write("/run/lab/kubelet-said", &log).unwrap();
    let report = scene
        .mend(&format!("{PURGE} --from-log /run/lab/kubelet-said"))
        .unwrap();
    let report = report.ended(0).unwrap();
    assert_eq!(report.with("orphan"), [named.pod.uid.clone()]);
    assert!(!named.exists() && other.exists());
    scene.same(&before).unwrap();
}

#[test]
fn t20_what_lies_in_an_empty_dir_leads_nowhere() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let mut dir = scene.orphan("gone").unwrap();
    let scratch = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    let precious = Path::new(kubelet::ROOT).join("precious");
    node.write(precious.join("data"), "precious\n").unwrap();
    let script = format!(
        "cd {0} && ln -s / root && ln -s {1} dir && ln {1}/data hard && mkfifo fifo && \
         mknod null c 1 3 && mknod disk b 7 0 && printf x >fixed && chattr +i fixed",
        scratch.display(),
        precious.display()
    );
    node.shell(&script).unwrap();
    let precious = node.path(precious.join("data"));
    let report = scene.mend(PURGE).unwrap().report().unwrap();
    let found = item(&report, &dir);
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious\n");
    if dir.exists() {
        assert_ne!(found.outcome(), "mended", "{found:?}");
        node.shell(&format!("chattr -i {}/fixed", scratch.display()))
            .unwrap();
        purge(&scene);
    }
    assert!(!dir.exists());
}

#[test]
fn t21_names_with_blanks_and_sources_that_are_gone_are_understood() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let mut dir = scene.orphan("gone").unwrap();
    let scratch = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    let at = scratch.join("with a blank\tand a tab");
    let from = Path::new(LOCAL_DISKS).join("to go");
    node.write(from.join("data"), "data\n").unwrap();
    let line = format!(
        "mkdir -p '{0}' && mount --bind '{1}' '{0}' && rm -r '{1}'",
        at.display(),
        from.display()
    );
    node.shell(&line).unwrap();
    let table = node.read("/proc/1/mountinfo").unwrap();
    assert!(table.contains("//deleted") && table.contains("\\040"), "{table}");
    only_goes(&scene, &dir);
}

#[test]
fn t21_a_name_that_is_no_text_fails_no_report_and_comes_back() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let dir = scene.orphan("gone").unwrap();
    let nfs = dir.path.join("volumes/kubernetes.io~nfs");
    let (nfs, name) = (nfs.display(), r"pv-\377");
    node.shell(&format!(
        "at={nfs}/$(printf '{name}') && mkdir -p $at && echo 'the only copy' >$at/data"
    ))
    .unwrap();
    let planned = scene.mend("").unwrap();
    assert!(planned.stdout.contains(r"~nfs/pv-\\xff"), "{planned}");
    only_goes(&scene, &dir);
    assert_eq!(quarantined(&scene, "the only copy").len(), 1);
    node.shell("mkdir /var/lib/kubelet/rescued").unwrap();
    let line = format!("mend-pods restore {} --to /var/lib/kubelet/rescued", dir.pod.uid);
    let argv: Vec<&str> = line.split(' ').collect();
    node.ran(&argv).unwrap().exited(0).unwrap();
    let at = format!(
        "/var/lib/kubelet/rescued/{}/volumes/kubernetes.io~nfs",
        dir.pod.uid
    );
    let back = node.shell(&format!("cat {at}/$(printf '{name}')/data")).unwrap();
    assert_eq!(back, "the only copy\n");
}

#[test]
fn t22_a_driver_that_does_not_mount_has_the_only_copy() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.volume("plain-pv", &Volume::Csi(Csi::unmounted())).unwrap();
    dir.volume("flex", &Volume::FlexUnmounted).unwrap();
    only_goes(&scene, &dir);
    assert_eq!(quarantined(&scene, "the only copy").len(), 2);
}

#[test]
fn t23_a_block_volume_is_let_go_and_no_byte_of_it_is_touched() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.block_volume("block-pv").unwrap();
    // kubelet's name for it, and the driver's; the volume's own directories are everybody's.
    let names = scene.node.mounts_below("/var/lib/kubelet/plugins").unwrap();
    let of_pod = |mount: &&Mounted| mount.at.ends_with(&dir.pod.uid);
    assert_eq!(names.iter().filter(of_pod).count(), 2, "{names:?}");
    let report = only_goes(&scene, &dir);
    let left = scene.node.mounts_below("/var/lib/kubelet/plugins").unwrap();
    assert_eq!(left.iter().filter(of_pod).count(), 0, "{report:?}");
    for name in names.iter().filter(of_pod) {
        assert!(!scene.node.path(&name.at).exists(), "{name:?}");
        assert!(scene.node.path(name.at.parent().unwrap()).exists());
    }
}

#[test]
fn t24_what_ends_with_an_unmount_is_asked_for_and_archived() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let mut dir = scene.orphan("gone").unwrap();
    let memory = dir.volume("shm", &Volume::MemoryDir).unwrap();
    let disk = dir.volume("scratch", &Volume::EmptyDir).unwrap();
    let refused = scene.mend("--apply --yes --purge").unwrap().ended(4).unwrap();
    assert_eq!(item(&refused, &dir).outcome(), "refused");
    assert_eq!(node.read(memory.join("scratch")).unwrap(), "scratch on memory\n");
    assert_eq!(node.read(disk.join("scratch")).unwrap(), "scratch\n");
    node.shell("mkdir /run/lab/archive").unwrap();
    let done = scene
        .mend("--apply --yes --purge --archive /run/lab/archive")
        .unwrap();
    done.ended(0).unwrap();
    assert!(!dir.exists());
    let tars = "cat /run/lab/archive/*.tar | tar --extract --to-stdout --ignore-zeros --file -";
    let said = node.shell(tars).unwrap();
    for content in ["scratch on memory\n", "scratch\n", "deeper\n"] {
        assert!(said.contains(content), "{content:?} is not in {said}");
    }
}

#[test]
fn t25_kubelet_works_at_the_same_time() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    let keeper = node.keep_house(Era::V1_30, Duration::from_millis(2)).unwrap();
    let before = scene.seen(&[]).unwrap();
    for _ in 0..5 {
        let mut dirs = Vec::new();
        let pods: Vec<Pod> = (0..5).map(|n| Pod::new(&format!("gone-{n}")).unwrap()).collect();
        // Until they are made, kubelet knows them.
        node.list_pods(&[scene.known(), pods.clone()].concat()).unwrap();
        for (n, pod) in pods.iter().enumerate() {
            let mut dir = node.pod_dir(pod).unwrap();
            let leaf = dir
                .volume(&format!("pv-{n}"), &Volume::Csi(Csi::unstaged()))
                .unwrap();
            if n % 2 == 0 {
                dir.unmount(&leaf).unwrap();
            }
            dirs.push(dir);
        }
        node.list_pods(&scene.known()).unwrap();
        // What kubelet has open just then stays, and says who has it; a run that meets none of that takes the rest.
        let all_gone = (0..20).any(|_| {
            let report = scene.mend(PURGE).unwrap().report().unwrap();
            for item in report.items.iter().filter(|item| item.outcome() == "failed") {
                assert!(format!("{item:?}").contains("nodemend-lab"), "{item:?}");
            }
            !dirs.iter().any(PodDir::exists)
        });
        assert!(all_gone, "{:?}", scene.mend(PURGE));
    }
    node.kill(&[keeper]).unwrap();
    let how = &scene.kubelet;
    let kubelets = node.processes().into_iter();
    let pids: Vec<u32> = kubelets
        .filter(|process| {
            process
                .argv
                .first()
                .is_some_and(|name| name == "/usr/bin/kubelet")
        })
        .map(|process| process.pid)
        .collect();
    node.kill(&pids).unwrap();
    node.start_kubelet_again(how).unwrap();
    let mut late = scene.orphan("late").unwrap();
    late.volume("scratch", &Volume::EmptyDir).unwrap();
    let young = PodScene::TOOL.replace("--kubelet-settled 0s", "");
    let report = node.mend(&format!("{young} {PURGE}")).unwrap().report().unwrap();
    assert_eq!(
        item(&report, &late).verdict,
        "undecided",
        "a list of a kubelet that has just come up"
    );
    scene.same(&before).unwrap();
}

#[test]
fn t26_the_quarantine_is_no_pod_to_kubelet() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.volume("only-pv", &Volume::Csi(Csi::unmounted())).unwrap();
    only_goes(&scene, &dir);
    for (_, era) in Era::ALL {
        let pass = scene.node.housekeeping(era).unwrap();
        assert!(
            pass.is_clean() && pass.removed.is_empty() && pass.wiped.is_empty(),
            "{pass:?}"
        );
    }
    assert_eq!(quarantined(&scene, "the only copy").len(), 1);
}

#[test]
fn t27_copies_of_the_hosts_mounts_in_other_namespaces_keep_no_pod() {
    let scene = PodScene::new().unwrap();
    let node = &scene.node;
    node.share_kubelet_root().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    let leaf = dir.volume("shared-pv", &Volume::Nfs).unwrap();
    let slave = node
        .spawn(&[
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "sleep",
            "infinity",
        ])
        .unwrap();
    let seen = || node.mounts_seen_by(slave).unwrap_or_default();
    nodemend_lab::tool::soon("a copy", || seen().iter().any(|mount| mount.at == leaf)).unwrap();
    only_goes(&scene, &dir);
    assert!(!seen().iter().any(|mount| mount.at == leaf));
}

#[test]
fn t28_what_kubelets_log_is_silent_about_is_found() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.volume("nfs", &Volume::Nfs).unwrap();
    let pass = scene.node.housekeeping(Era::V1_30).unwrap();
    assert!(pass.log.is_none() && !pass.whispers.is_empty(), "{pass:?}");
    only_goes(&scene, &dir);
}

#[test]
fn t29_in_another_mount_namespace_nothing_is_done() {
    let scene = PodScene::new().unwrap();
    let mut dir = scene.orphan("gone").unwrap();
    dir.volume("scratch", &Volume::EmptyDir).unwrap();
    let line = format!(
        "unshare --mount {} {PURGE} --grace 0s --settle 0s --output json",
        PodScene::TOOL
    );
    let argv: Vec<&str> = line.split(' ').collect();
    let ran = scene.node.ran(&argv).unwrap();
    assert_ne!(ran.code, 0, "{ran}");
    assert!(dir.exists());
    let alone = outside("mend-pods --help").unwrap();
    alone.exited(0).unwrap();
}
