//! Reading a network directory: every file of it, relative to its descriptor, without ever blocking.

use std::ffi::CStr;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use nodemend_hostfs::FileId;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;
use crate::form::{self, Content, Form, Name};
use crate::reservation::{Repair, Reservation};

/// More than any file of host-local holds.
pub(crate) const LARGEST: usize = 4096;

/// Below this many files a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1000;

/// How far a file's time may be ahead of the moment of the look: the look takes time itself.
const SLACK: i64 = 5;

/// A network directory whose files are read.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The network.
    pub(crate) network: Arc<str>,
    /// The directory.
    pub(crate) dir: Arc<str>,
    /// Seconds since 1970, now.
    pub(crate) now: u64,
}

/// Reads every file of a network directory, sorted by address. Two threads: the calls wait for no disk once the
/// directory is warm, and each is a few microseconds.
///
/// # Errors
/// If the directory cannot be listed. A file that cannot be read is a reservation that says so.
pub(crate) fn reservations(fd: &OwnedFd, place: &Place) -> Result<Vec<Reservation>, Error> {
    let names = Names::of(fd).map_err(Error::io("list", &*place.dir))?;
    let half = names.spans.len().div_ceil(2);
    let (first, second) = if names.spans.len() < WORTH_A_THREAD {
        (&names.spans[..], &[][..])
    } else {
        names.spans.split_at(half)
    };
    let read = |spans: &[Span]| -> Vec<Reservation> {
        let mut reader = Reader::new(fd.as_fd(), place);
        let mut buffer = [0; LARGEST + 1];
        spans
            .iter()
            .filter_map(|span| reader.look(names.name(span)?, span.kind, &mut buffer))
            .collect()
    };
    let mut found = if second.is_empty() {
        read(first)
    } else {
        thread::scope(|scope| {
            let worker = thread::Builder::new()
                .name("ipam".into())
                .spawn_scoped(scope, || read(second))
                .map_err(Error::Thread)?;
            let mut found = read(first);
            found.extend(
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
            Ok::<_, Error>(found)
        })?
    };
    found.sort_unstable_by(|a, b| (a.ip.is_none(), a.ip, &a.file).cmp(&(b.ip.is_none(), b.ip, &b.file)));
    Ok(found)
}

/// The names of a directory, in one buffer.
struct Names {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

struct Span {
    start: usize,
    end: usize,
    kind: FileType,
}

impl Names {
    fn of(fd: &OwnedFd) -> Result<Self, Errno> {
        let mut names = Self {
            bytes: Vec::new(),
            spans: Vec::new(),
        };
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let start = names.bytes.len();
            names.bytes.extend_from_slice(name.to_bytes_with_nul());
            names.spans.push(Span {
                start,
                end: names.bytes.len(),
                kind: entry.file_type(),
            });
        }
        Ok(names)
    }

    fn name(&self, span: &Span) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(span.start..span.end)?).ok()
    }
}

/// What one open file holds.
pub(crate) struct Held<'b> {
    pub(crate) stat: Stat,
    pub(crate) bytes: Result<&'b [u8], Form>,
}

/// Opens one file below a directory and reads it. Follows no link, waits for nobody.
///
/// # Errors
/// What open(2) and fstat(2) give.
pub(crate) fn held<'b>(
    dir: BorrowedFd<'_>,
    name: &CStr,
    buffer: &'b mut [u8; LARGEST + 1],
) -> Result<Held<'b>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut stat = rustix::fs::fstat(&file)?;
    if let Some(reason) = oddity(&stat) {
        return Ok(Held {
            stat,
            bytes: Err(Form::Foreign(reason.into())),
        });
    }
    // Between creation and write a file is empty; take the content only if it fits the size.
    for _ in 0..3 {
        let read = rustix::io::pread(&file, &mut buffer[..], 0)?;
        if i64::try_from(read) == Ok(stat.st_size) {
            return Ok(Held {
                stat,
                bytes: Ok(&buffer[..read]),
            });
        }
        stat = rustix::fs::fstat(&file)?;
    }
    Ok(Held {
        stat,
        bytes: Err(Form::Unread("it changes while it is read".into())),
    })
}

/// Why something is not a file that host-local made.
fn oddity(stat: &Stat) -> Option<&'static str> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Some(kind_word(kind));
    }
    if stat.st_nlink > 1 {
        return Some("it has other names too (hard links)");
    }
    let large = u64::try_from(stat.st_size).is_ok_and(|size| size > LARGEST as u64);
    large.then_some("it is larger than any file of host-local (4 KiB)")
}

fn kind_word(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "it is a symbolic link",
        FileType::Directory => "it is a directory",
        FileType::RegularFile
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => "it is no regular file",
    }
}

/// Seconds and nanoseconds of a file's last change.
pub(crate) fn changed(stat: &Stat) -> (i64, u32) {
    (
        stat.st_mtime,
        u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    )
}

struct Reader<'a> {
    dir: BorrowedFd<'a>,
    place: &'a Place,
    /// The last interface name: nearly all are the same.
    ifname: Arc<str>,
    empty: Arc<str>,
}

impl<'a> Reader<'a> {
    fn new(dir: BorrowedFd<'a>, place: &'a Place) -> Self {
        Self {
            dir,
            place,
            ifname: "".into(),
            empty: "".into(),
        }
    }

    /// One file; none if it is no reservation, or went meanwhile.
    fn look(&mut self, name: &CStr, kind: FileType, buffer: &mut [u8; LARGEST + 1]) -> Option<Reservation> {
        match form::name(name.to_bytes()) {
            Name::Bookkeeping => None,
            Name::Foreign(reason) => self.unopened(name, None, Form::Foreign(reason.into())),
            Name::Address(ip) if !matches!(kind, FileType::RegularFile | FileType::Unknown) => {
                self.unopened(name, Some(ip), Form::Foreign(kind_word(kind).into()))
            }
            Name::Address(ip) => self.opened(name, ip, buffer),
        }
    }

    fn unopened(&self, name: &CStr, ip: Option<IpAddr>, form: Form) -> Option<Reservation> {
        match rustix::fs::statat(self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(self.reservation(name, ip, form, &stat)),
            Err(_) => None,
        }
    }

    fn opened(&mut self, name: &CStr, ip: IpAddr, buffer: &mut [u8; LARGEST + 1]) -> Option<Reservation> {
        match held(self.dir, name, buffer) {
            Ok(held) if held.stat.st_nlink == 0 => None,
            Ok(Held {
                stat,
                bytes: Err(form),
            }) => Some(self.reservation(name, Some(ip), form, &stat)),
            Ok(Held {
                stat,
                bytes: Ok(bytes),
            }) => Some(self.parsed(name, ip, bytes, &stat)),
            Err(Errno::NOENT) => None,
            Err(Errno::LOOP) => self.unopened(name, Some(ip), Form::Foreign("it is a symbolic link".into())),
            Err(errno) => {
                let reason = std::io::Error::from(errno).to_string();
                self.unopened(
                    name,
                    Some(ip),
                    Form::Unread(format!("it could not be read: {reason}").into()),
                )
            }
        }
    }

    fn parsed(&mut self, name: &CStr, ip: IpAddr, bytes: &[u8], stat: &Stat) -> Reservation {
        let (form, id, ifname) = match form::content(bytes) {
            Content::Modern { id, ifname } => (Form::Modern, Some(id), Some(ifname)),
            Content::Legacy { id } => (Form::Legacy, Some(id), None),
            Content::Empty => (Form::Empty, None, None),
            Content::Foreign(reason) => (Form::Foreign(reason.into()), None, None),
        };
        let text = std::str::from_utf8(bytes).ok().filter(|_| id.is_some());
        let mut reservation = self.reservation(name, Some(ip), form, stat);
        reservation.content = text.map_or_else(|| self.empty.clone(), Arc::from);
        reservation.id = id.map(Arc::from);
        reservation.ifname = ifname.map(|ifname| self.shared(ifname));
        reservation
    }

    fn shared(&mut self, ifname: &str) -> Arc<str> {
        if &*self.ifname != ifname {
            self.ifname = ifname.into();
        }
        self.ifname.clone()
    }

    fn reservation(&self, name: &CStr, ip: Option<IpAddr>, form: Form, stat: &Stat) -> Reservation {
        let (mtime, mtime_nanos) = changed(stat);
        let now = i64::try_from(self.place.now).unwrap_or(i64::MAX);
        let age = (mtime <= now.saturating_add(SLACK))
            .then(|| u64::try_from(now.saturating_sub(mtime)).unwrap_or(0));
        Reservation {
            network: self.place.network.clone(),
            dir: self.place.dir.clone(),
            file: name.to_string_lossy().into(),
            ip,
            id: None,
            ifname: None,
            form,
            identity: FileId::from(stat),
            mtime,
            mtime_nanos,
            age,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mode: stat.st_mode & 0o7777,
            content: self.empty.clone(),
            repair: Repair::Move,
        }
    }
}
