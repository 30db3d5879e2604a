//! An old kernel, as far as its system calls go: every call that Linux 3.10 did not have answers ENOSYS. And kernels that lack
//! one call only.
//!
//! Only calls are taken away. A flag, an ioctl, a netlink attribute or a file in /proc that is newer than 3.10 is still there.

use std::fmt;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use seccompiler::{BpfProgram, sock_filter};

use crate::error::{LabError, Result};
use crate::node::Node;
use crate::tools;

/// The last call of Linux 3.10 on x86_64: `finit_module`.
///
/// From `arch/x86/syscalls/syscall_64.tbl` of the tag v3.10 (since 4.2 the file is in `arch/x86/entry/syscalls`). The next one,
/// `sched_setattr` (314), came with 3.14. What follows includes `renameat2` (316), `getrandom` (318), `statx` (332), `clone3` (435),
/// `openat2` (437) and `faccessat2` (439). The kernel of EL7 is called 3.10 and has some of them; this one has none.
pub const LAST_CALL: u32 = 313;

/// `AUDIT_ARCH_X86_64` of `include/uapi/linux/audit.h`: `EM_X86_64` with the bits for 64 bits and little endian.
const X86_64: u32 = 0xC000_003E;

/// Offsets in `struct seccomp_data` of `include/uapi/linux/seccomp.h`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

// Operations of `include/uapi/linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;

// Answers of `include/uapi/linux/seccomp.h`.
const ALLOW: u32 = 0x7FFF_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = ERRNO | nix::libc::ENOSYS.unsigned_abs();
const EPERM: u32 = ERRNO | nix::libc::EPERM.unsigned_abs();

/// Numbers of `arch/x86/entry/syscalls/syscall_64.tbl`.
const STATX: u32 = 332;
const OPENAT2: u32 = 437;

/// A kernel, as far as its calls go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// The one that runs.
    Today,
    /// Every call that Linux 3.10 did not have answers ENOSYS.
    #[default]
    Linux3_10,
    /// `openat2` answers ENOSYS: Linux before 5.6.
    WithoutOpenat2,
    /// `openat2` answers EPERM: a container whose runtime does not know the call, and so forbids it.
    Openat2Forbidden,
    /// `openat2` and `statx` answer ENOSYS: Linux before 4.11, with all else of today.
    WithoutStatx,
}

impl Kernel {
    /// All that are not the one that runs.
    pub const OTHERS: [Self; 4] = [
        Self::Linux3_10,
        Self::WithoutOpenat2,
        Self::Openat2Forbidden,
        Self::WithoutStatx,
    ];

    /// A program that will run on this kernel.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] when the lab's own binary was not built.
    pub fn command(self, program: &Path) -> Result<Command> {
        if self == Self::Today {
            return Ok(Command::new(program));
        }
        let mut command = Command::new(tools::lab_binary()?);
        command
            .args(["old-kernel", "--kernel", &self.to_string(), "--"])
            .arg(program);
        Ok(command)
    }

    /// Puts the calling thread, and whatever it starts or becomes, on this kernel. There is no way back.
    ///
    /// It also sets `no_new_privs`: a set-user-id program that is started later gains nothing.
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] on another architecture than x86_64, whose numbers these are, and where the kernel takes no filter.
    pub fn enter(self) -> Result<()> {
        if !cfg!(target_arch = "x86_64") {
            return Err(LabError::Missing(
                "the calls of an old kernel are known for x86_64 only".to_owned(),
            ));
        }
        let filter = match self {
            Self::Today => return Ok(()),
            Self::Linux3_10 => none_newer(),
            Self::WithoutOpenat2 => all_but(&[OPENAT2], ENOSYS),
            Self::Openat2Forbidden => all_but(&[OPENAT2], EPERM),
            Self::WithoutStatx => all_but(&[OPENAT2, STATX], ENOSYS),
        };
        seccompiler::apply_filter(&filter)
            .map_err(|error| LabError::Missing(format!("the kernel takes no system call filter: {error}")))
    }
}

/// As on the lab's command line.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Calls of another architecture have other numbers, and calls of x32 have a high bit set: both answer ENOSYS.
fn none_newer() -> BpfProgram {
    vec![
        step(LOAD_WORD, ARCHITECTURE, 0, 0),
        step(JUMP_IF_EQUAL, X86_64, 0, 3),
        step(LOAD_WORD, NUMBER, 0, 0),
        step(JUMP_IF_GREATER, LAST_CALL, 1, 0),
        step(RETURN, ALLOW, 0, 0),
        step(RETURN, ENOSYS, 0, 0),
    ]
}

/// Calls of another architecture have other numbers, and are let through.
fn all_but(calls: &[u32], answer: u32) -> BpfProgram {
    let mut filter = vec![
        step(LOAD_WORD, ARCHITECTURE, 0, 0),
        step(JUMP_IF_EQUAL, X86_64, 1, 0),
        step(RETURN, ALLOW, 0, 0),
        step(LOAD_WORD, NUMBER, 0, 0),
    ];
    for call in calls {
        filter.push(step(JUMP_IF_EQUAL, *call, 0, 1));
        filter.push(step(RETURN, answer, 0, 0));
    }
    filter.push(step(RETURN, ALLOW, 0, 0));
    filter
}

/// `jt` and `jf` say how many instructions are left out if a comparison holds, and if not.
fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

impl Node {
    /// As [`Node::command`] with the path of a program, which then runs on Linux 3.10: see [`Kernel`].
    ///
    /// # Errors
    ///
    /// [`LabError::Missing`] when the lab's own binary was not built.
    pub fn command_on_old_kernel(&self, program: &Path) -> Result<Command> {
        let mut command = self.command(tools::lab_binary()?);
        command.args(["old-kernel", "--"]).arg(program);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::errno::Errno;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn a_newer_call_is_not_there_and_an_older_one_is() {
        // The filter is the thread's own: the other tests keep their kernel.
        let thread = thread::spawn(|| {
            Kernel::Linux3_10.enter().unwrap();
            assert_eq!(memfd_create("new", MFdFlags::empty()).unwrap_err(), Errno::ENOSYS);
            nix::unistd::pipe().unwrap();
        });
        thread.join().unwrap();
        memfd_create("new", MFdFlags::empty()).unwrap();
    }

    #[test]
    fn one_call_can_be_missing_or_forbidden_and_all_others_are_there() {
        let answers = [
            (Kernel::WithoutOpenat2, Errno::ENOSYS),
            (Kernel::Openat2Forbidden, Errno::EPERM),
        ];
        for (kernel, answer) in answers {
            let thread = thread::spawn(move || {
                let open = || nix::fcntl::openat2(nix::fcntl::AT_FDCWD, "/", nix::fcntl::OpenHow::new());
                open().unwrap();
                kernel.enter().unwrap();
                assert_eq!(open().unwrap_err(), answer);
                memfd_create("new", MFdFlags::empty()).unwrap();
            });
            thread.join().unwrap();
        }
    }
}
