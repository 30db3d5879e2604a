//! A new directory that is like another one: owner, mode, extended attributes and with them ACLs and the SELinux label.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, Gid, Mode, OFlags, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, fsync,
    mkdirat, openat,
};
use rustix::io::Errno;

use crate::error::Error;

/// The most that a list of names, or a value, has in bytes (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LIMIT: usize = 64 << 10;

/// Opens a directory for reading, a symlink not followed.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))
}

/// Makes a directory at `path` that is like `model`. One that is there already, as a run was killed, is made like it: it must
/// be empty.
pub(crate) fn make_like(model: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::io("create directory", path)(errno)),
    }
    let new = open_dir(path)?;
    if !is_empty(&new).map_err(Error::io("list", path))? {
        return Err(Error::Unfit(format!(
            "{}: is not empty, and should be a new directory; move it away",
            path.display()
        )));
    }
    liken(model, new.as_fd()).map_err(Error::io("make it like the old root:", path))?;
    fsync(&new).map_err(Error::io("sync", path))
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            return Ok(false);
        }
    }
    Ok(true)
}

fn liken(model: BorrowedFd<'_>, new: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = fstat(model)?;
    // A change of the owner takes set-id bits away, so the mode comes after it.
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(new, Some(uid), Some(gid))?;
    fchmod(new, Mode::from_raw_mode(stat.st_mode))?;
    let model_names = attributes(model)?;
    for name in &model_names {
        if name.to_bytes() == nodemend_rmtree::marker().as_bytes() {
            continue;
        }
        let value = value(model, name)?;
        // What is there already is not written: a kernel may refuse to set a label that it has set itself.
        if self::value(new, name).ok().as_ref() != Some(&value) {
            fsetxattr(new, name.as_c_str(), &value, XattrFlags::empty())?;
        }
    }
    Ok(())
}

fn attributes(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names: Vec<u8> = Vec::with_capacity(LIMIT);
    match flistxattr(dir, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    }
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

fn value(dir: BorrowedFd<'_>, name: &CString) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(LIMIT);
    fgetxattr(dir, name.as_c_str(), rustix::buffer::spare_capacity(&mut value))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_new_root_has_the_mode_and_the_attributes_of_the_old_one() {
        let scratch = tempfile::tempdir().unwrap();
        let (old, new) = (scratch.path().join("old"), scratch.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o2711)).unwrap();
        let model = open_dir(&old).unwrap();
        fsetxattr(&model, "user.note", b"kept", XattrFlags::empty()).unwrap();
        fsetxattr(
            &model,
            nodemend_rmtree::marker(),
            b"not kept",
            XattrFlags::empty(),
        )
        .unwrap();
        make_like(model.as_fd(), &new).unwrap();
        make_like(model.as_fd(), &new).unwrap();
        let (is, was) = (std::fs::metadata(&new).unwrap(), std::fs::metadata(&old).unwrap());
        assert_eq!(
            (is.mode(), is.uid(), is.gid()),
            (was.mode(), was.uid(), was.gid())
        );
        let dir = open_dir(&new).unwrap();
        assert_eq!(value(dir.as_fd(), &c"user.note".to_owned()).unwrap(), b"kept");
        let marker = CString::new(nodemend_rmtree::marker()).unwrap();
        assert_eq!(value(dir.as_fd(), &marker), Err(Errno::NODATA));
    }

    #[test]
    fn what_is_not_empty_is_not_taken_for_a_new_root() {
        let scratch = tempfile::tempdir().unwrap();
        let there = scratch.path().join("there");
        std::fs::create_dir_all(there.join("something")).unwrap();
        let model = open_dir(scratch.path()).unwrap();
        assert!(matches!(make_like(model.as_fd(), &there), Err(Error::Unfit(_))));
    }
}
