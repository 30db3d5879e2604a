//! A remover that trusts paths, as many do. What it loses shows that the tests can see a loss.

use std::io;
use std::path::Path;

/// Removes what a path leads to, and resolves the path anew at each step: between the look at an entry and the next step it may
/// have become a symlink, and then what that leads to is emptied. Errors end nothing.
pub fn remove(path: &Path) {
    let _ = empty(path);
    let _ = std::fs::remove_dir(path);
}

fn empty(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        } else {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
