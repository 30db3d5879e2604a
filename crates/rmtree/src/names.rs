//! Many names in little memory.

use std::ffi::CStr;

/// Names, one behind the other, each with the zero byte that the kernel wants: a million of 20 bytes are 21 MB.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    count: usize,
}

impl Names {
    pub(crate) fn push(&mut self, name: &CStr) {
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How much memory they take, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the last one off.
    pub(crate) fn pop(&mut self) -> Option<Box<CStr>> {
        let without_end = self.bytes.len().checked_sub(1)?;
        let start = self.bytes[..without_end].iter().rposition(|&byte| byte == 0);
        let name = self.bytes.split_off(start.map_or(0, |zero| zero + 1));
        self.count -= 1;
        CStr::from_bytes_with_nul(&name).ok().map(Box::from)
    }

    /// In the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.bytes
            .split_inclusive(|&byte| byte == 0)
            .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    }
}

/// The files of a directory, each with its inode number.
#[derive(Debug, Default)]
pub(crate) struct Files {
    names: Names,
    /// Inode number, and where the name begins.
    order: Vec<(u64, usize)>,
}

impl Files {
    pub(crate) fn push(&mut self, inode: u64, name: &CStr) {
        self.order.push((inode, self.names.bytes.len()));
        self.names.push(name);
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// How much memory they take, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.names.size() + self.order.len() * size_of::<(u64, usize)>()
    }

    /// Puts them in the order of their inodes: neighbours share a block of the inode table, which is then read, changed and
    /// written to the journal once.
    pub(crate) fn sort(&mut self) {
        self.order.sort_unstable();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.order.iter().filter_map(|&(_, start)| self.name(start))
    }

    /// All of them, in portions of so many.
    pub(crate) fn portions(&self, size: usize) -> impl DoubleEndedIterator<Item = Names> {
        self.order.chunks(size).map(|portion| {
            let mut names = Names::default();
            for name in portion.iter().filter_map(|&(_, start)| self.name(start)) {
                names.push(name);
            }
            names
        })
    }

    fn name(&self, start: usize) -> Option<&CStr> {
        CStr::from_bytes_until_nul(self.names.bytes.get(start..)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Names {
        let mut names = Names::default();
        for name in [c"a", c"new\nline", c"\xff"] {
            names.push(name);
        }
        names
    }

    #[test]
    fn names_come_back_as_they_went_in() {
        let mut names = three();
        assert_eq!(names.iter().collect::<Vec<_>>(), [c"a", c"new\nline", c"\xff"]);
        assert_eq!(names.pop().as_deref(), Some(c"\xff"));
        assert_eq!(names.pop().as_deref(), Some(c"new\nline"));
        assert_eq!(names.len(), 1);
        assert_eq!(names.pop().as_deref(), Some(c"a"));
        assert!(names.len() == 0 && names.pop().is_none());
    }

    #[test]
    fn files_are_sorted_by_their_inodes_and_portions_have_all_of_them() {
        let mut files = Files::default();
        for (inode, name) in [(7, c"a"), (3, c"new\nline"), (5, c"\xff")] {
            files.push(inode, name);
        }
        files.sort();
        assert_eq!(files.iter().collect::<Vec<_>>(), [c"new\nline", c"\xff", c"a"]);
        let portions: Vec<_> = files.portions(2).collect();
        assert_eq!(portions[0].iter().collect::<Vec<_>>(), [c"new\nline", c"\xff"]);
        assert_eq!(portions[1].iter().collect::<Vec<_>>(), [c"a"]);
    }
}
