//! The cgroups of containers, in every hierarchy.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nodemend_hostfs::FileId;
use nodemend_hostfs::mountinfo::Mount;
use nodemend_hostfs::pool::{self, Pulse};
use nodemend_procns::{Census, Details};
use nodemend_runtime::Leftovers;
use rustix::fs::{FileType, lstat};
use rustix::io::Errno;

use crate::error::Error;
use crate::places::ContainerCgroup;
use crate::sandbox::Cgroup;
use crate::survey::container_of;

/// A directory that may be a container's cgroup.
pub(super) type Wanted = BTreeSet<(String, PathBuf)>;

/// Where the cgroups of containers must be, by what their processes, their bundles and runc's states say.
pub(super) fn wanted(table: &[Mount], census: &Census, details: &Details, leftovers: &Leftovers) -> Wanted {
    let mut wanted = Wanted::new();
    for detail in &details.processes {
        let process = census.process(detail.pid);
        let Some(id) = process.and_then(|process| container_of(census, process)) else {
            continue;
        };
        for member in &detail.cgroups {
            let path = up_to(&member.path, id);
            let hierarchy = table.iter().filter(|mount| is_of(mount, &member.controllers));
            let dirs = path
                .iter()
                .flat_map(|path| hierarchy.clone().filter_map(|mount| below(mount, path)));
            wanted.extend(dirs.map(|dir| (id.to_owned(), dir)));
        }
    }
    for bundle in &leftovers.bundles {
        let Some(path) = bundle.cgroup.as_deref().and_then(of_bundle) else {
            continue;
        };
        // What is not named for the container may be anybody's.
        let Some(path) = up_to(&path, &bundle.id) else {
            continue;
        };
        let dirs = table
            .iter()
            .filter(|mount| is_cgroup(mount))
            .filter_map(|mount| below(mount, &path));
        wanted.extend(dirs.map(|dir| (bundle.id.clone(), dir)));
    }
    for state in &leftovers.runc_states {
        let of_kernel = |dir: &&PathBuf| table.iter().any(|mount| is_below(mount, dir));
        let dirs = state.cgroups.iter().filter(of_kernel);
        let own = dirs.filter_map(|dir| up_to(dir, &state.id));
        wanted.extend(own.map(|dir| (state.id.clone(), dir)));
    }
    wanted
}

fn is_cgroup(mount: &Mount) -> bool {
    matches!(&*mount.fstype, "cgroup" | "cgroup2")
}

/// True for a directory below the mount point of cgroups.
fn is_below(mount: &Mount, dir: &Path) -> bool {
    let inside = dir.strip_prefix(&mount.mountpoint);
    is_cgroup(mount) && inside.is_ok_and(is_plain)
}

fn is_plain(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// True if the mount shows the hierarchy of these controllers; no controllers are cgroup v2.
fn is_of(mount: &Mount, controllers: &str) -> bool {
    let options: Vec<&[u8]> = mount.options.as_bytes().split(|&byte| byte == b',').collect();
    match controllers {
        "" => &*mount.fstype == "cgroup2",
        _ => {
            &*mount.fstype == "cgroup"
                && controllers
                    .split(',')
                    .all(|one| options.contains(&one.as_bytes()))
        }
    }
}

/// The path of a hierarchy, below the mount that shows it or a part of it.
fn below(mount: &Mount, path: &Path) -> Option<PathBuf> {
    let inside = path.strip_prefix(&mount.root).ok()?;
    is_plain(inside).then(|| mount.mountpoint.join(inside))
}

/// The cgroup that is named for the container: what lies deeper, it made itself.
fn up_to(path: &Path, id: &str) -> Option<PathBuf> {
    let names_it = |part: &OsStr| part.to_string_lossy().contains(id);
    let found = path
        .ancestors()
        .filter(|dir| dir.file_name().is_some_and(names_it));
    found.last().map(Path::to_owned)
}

/// The path that a specification means: itself, or `slice:prefix:name`, of which systemd makes a scope in nested slices
/// (runc, libcontainer/cgroups/systemd/common.go, `ExpandSlice` and `getUnitName`).
fn of_bundle(text: &str) -> Option<PathBuf> {
    if text.starts_with('/') {
        return Some(PathBuf::from(text));
    }
    let mut words = text.split(':');
    let (slice, prefix, name) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || name.is_empty() {
        return None;
    }
    let unit = match prefix {
        "" => format!("{name}.scope"),
        _ => format!("{prefix}-{name}.scope"),
    };
    Some(slices(slice)?.join(unit))
}

/// `a-b.slice` is `/a.slice/a-b.slice`.
fn slices(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::from("/");
    if name == "-" {
        return Some(path);
    }
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    for end in ends {
        path.push(format!("{}.slice", &name[..end]));
    }
    Some(path)
}

/// Those that are there.
pub(super) fn look(wanted: Wanted) -> Result<(Vec<ContainerCgroup>, Vec<String>), Error> {
    let jobs: Vec<_> = wanted.into_iter().collect();
    let work = |(id, path): &(String, PathBuf), _: &Pulse, answer: &mut dyn FnMut(_)| match lstat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            answer(Ok(ContainerCgroup {
                container: id.clone(),
                cgroup: Cgroup {
                    path: path.clone(),
                    dir: FileId::from(&stat),
                },
            }));
        }
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(errno) => answer(Err(format!("{}: {errno}", path.display()))),
    };
    let done = pool::run(jobs, Box::new(work)).map_err(Error::Thread)?;
    let mut found = Vec::new();
    let mut unread = Vec::new();
    for said in done.answers {
        match said {
            Ok(cgroup) => found.push(cgroup),
            Err(reason) => unread.push(reason),
        }
    }
    if !done.given_up.is_empty() {
        unread.push("the kernel did not show every cgroup within 2 s".to_owned());
    }
    found.sort_unstable_by(|a: &ContainerCgroup, b| a.cgroup.path.cmp(&b.cgroup.path));
    Ok((found, unread))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8f3a";

    #[test]
    fn a_container_s_cgroup_is_the_one_that_is_named_for_it() {
        let of = |path: &str| up_to(Path::new(path), ID).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(
            of("/kubepods/podx/8f3a/init.scope").as_deref(),
            Some("/kubepods/podx/8f3a")
        );
        assert_eq!(
            of("/a.slice/cri-containerd-8f3a.scope").as_deref(),
            Some("/a.slice/cri-containerd-8f3a.scope")
        );
        assert_eq!(of("/kubepods/podx"), None);
    }

    #[test]
    fn both_spellings_of_a_specification_lead_to_the_same_cgroup() {
        assert_eq!(
            of_bundle("/kubepods/podx/8f3a"),
            Some("/kubepods/podx/8f3a".into())
        );
        let nested = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-8f3a.scope";
        assert_eq!(
            of_bundle("kubepods-burstable-pod1.slice:cri-containerd:8f3a"),
            Some(nested.into())
        );
        assert_eq!(
            of_bundle("system.slice:runc:8f3a"),
            Some("/system.slice/runc-8f3a.scope".into())
        );
        for odd in ["8f3a", "a:b", "a:b:c:d", "nothing:x:8f3a", "x.slice:y:"] {
            assert_eq!(of_bundle(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_hierarchy_is_found_by_its_controllers_and_a_path_never_leaves_it() {
        let mount = |fstype: &str, options: &str, root: &str| Mount {
            id: 1,
            parent: 0,
            dev: (0, 1),
            root: Path::new(root).into(),
            mountpoint: "/sys/fs/cgroup/x".into(),
            fstype: fstype.into(),
            source: OsStr::new("cgroup").into(),
            options: OsStr::new(options).into(),
        };
        let cpu = mount("cgroup", "rw,cpuacct,cpu", "/");
        assert!(is_of(&cpu, "cpu,cpuacct") && !is_of(&cpu, "") && !is_of(&cpu, "memory"));
        assert!(is_of(
            &mount("cgroup", "rw,xattr,name=systemd", "/"),
            "name=systemd"
        ));
        assert!(is_of(&mount("cgroup2", "rw", "/"), ""));
        assert_eq!(
            below(&cpu, Path::new("/a/8f3a")),
            Some("/sys/fs/cgroup/x/a/8f3a".into())
        );
        assert_eq!(
            below(&mount("cgroup", "rw,cpu", "/docker/1"), Path::new("/a/8f3a")),
            None
        );
        assert_eq!(below(&cpu, Path::new("/../../etc")), None);
    }
}
