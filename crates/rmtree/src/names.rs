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

    /// All of them, in portions of so many.
    pub(crate) fn portions(&self, size: usize) -> Vec<Self> {
        let mut portions: Vec<Self> = Vec::with_capacity(self.count.div_ceil(size));
        for (index, name) in self.iter().enumerate() {
            if index % size == 0 {
                portions.push(Self::default());
            }
            if let Some(portion) = portions.last_mut() {
                portion.push(name);
            }
        }
        portions
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
    fn portions_have_all_of_them() {
        let portions = three().portions(2);
        let sizes: Vec<_> = portions.iter().map(Names::len).collect();
        assert_eq!(sizes, [2, 1]);
        assert_eq!(portions[1].iter().next(), Some(c"\xff"));
    }
}
