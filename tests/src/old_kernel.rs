//! An old kernel, as far as its system calls go: every call that Linux 3.10 did not have answers ENOSYS.
//!
//! Only calls are taken away. A flag, an ioctl, a netlink attribute or a file in /proc that is newer than 3.10 is still there.

use std::path::Path;
use std::process::Command;

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
const ENOSYS: u32 = 0x0005_0000 | nix::libc::ENOSYS.unsigned_abs();

/// Puts the calling thread, and whatever it starts or becomes, on an old kernel. There is no way back.
///
/// It also sets `no_new_privs`: a set-user-id program that is started later gains nothing.
///
/// # Errors
///
/// [`LabError::Missing`] on another architecture than x86_64, whose numbers these are, and where the kernel takes no filter.
pub fn enter() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Err(LabError::Missing(
            "the calls of an old kernel are known for x86_64 only".to_owned(),
        ));
    }
    seccompiler::apply_filter(&filter())
        .map_err(|error| LabError::Missing(format!("the kernel takes no system call filter: {error}")))
}

/// Calls of another architecture have other numbers, and calls of x32 have a high bit set: both answer ENOSYS.
fn filter() -> BpfProgram {
    vec![
        step(LOAD_WORD, ARCHITECTURE, 0, 0),
        step(JUMP_IF_EQUAL, X86_64, 0, 3),
        step(LOAD_WORD, NUMBER, 0, 0),
        step(JUMP_IF_GREATER, LAST_CALL, 1, 0),
        step(RETURN, ALLOW, 0, 0),
        step(RETURN, ENOSYS, 0, 0),
    ]
}

/// `jt` and `jf` say how many instructions are left out if a comparison holds, and if not.
fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

impl Node {
    /// As [`Node::command`] with the path of a program, which then runs on an old kernel: see [`enter`].
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
            enter().unwrap();
            assert_eq!(memfd_create("new", MFdFlags::empty()).unwrap_err(), Errno::ENOSYS);
            nix::unistd::pipe().unwrap();
        });
        thread.join().unwrap();
        memfd_create("new", MFdFlags::empty()).unwrap();
    }
}
