//! Backups in a directory: Cinder's posix driver, and nfs and glusterfs, which mount the directory first.
//!
//! A container is a directory below the root (`ab/cd/<backup id>`), an object is a regular file in it. Names are from rows and
//! side files, so none is trusted: every path below the root is opened without following links, and only regular files are opened
//! for reading. Linux only, like cinder-backup. If the server of a share that is mounted "hard" (NFS's default) is unreachable, every
//! call blocks until it is back. No program can avoid that.
//!
//! Source: `cinder/backup/drivers/{posix,nfs,glusterfs}.py`, `os_brick/remotefs/remotefs.py` (`get_mount_point`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::num::NonZero;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use md5::{Digest, Md5};
use rustix::fs::{Advice, AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::{ListedPage, ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::config::StorageOptions;
use crate::domain::{Driver, hex};

/// For a directory in the middle of a path, which need not be readable.
const PASSAGE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// If a fifo or a device replaces the file at the last moment, the open neither blocks nor acquires a terminal.
const PLAIN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The names on a page of a listing.
const PAGE: usize = if cfg!(test) { 1_000 } else { 10_000 };

/// Returns the directory with the containers of a driver of the posix family: `storage_path`, or that of the options.
///
/// # Errors
/// [`StorageErrorKind::Configuration`] for an option that is not set, for a share that is not mounted, and for a driver of
/// another family.
pub fn root(options: &StorageOptions, driver: Driver, storage_path: Option<&Path>) -> Result<PathBuf, StorageError> {
    let option = |name: &str| {
        options.text(name)?.map(|setting| setting.value).ok_or_else(|| {
            StorageError::configuration(format!(
                "{name} is not set; use --config-file, --storage-option {name}=VALUE or --storage-path DIRECTORY"
            ))
        })
    };
    let (base, share) = match driver {
        Driver::Posix => ("backup_posix_path", None),
        Driver::Nfs => ("backup_mount_point_base", Some("backup_share")),
        Driver::GlusterFs => ("glusterfs_backup_mount_point", Some("glusterfs_backup_share")),
        _ => return Err(StorageError::configuration(format!("the driver {} does not keep its backups in a directory", driver))),
    };
    if let Some(path) = storage_path {
        return Ok(path.to_owned());
    }
    let Some(share) = share else { return option(base).map(PathBuf::from) };
    let share = option(share)?;
    let path = Path::new(&option(base)?).join(hex::encode(&Md5::digest(share.as_bytes())));
    if !is_mounted(&path) {
        let path = path.display();
        return Err(StorageError::configuration(format!(
            "the share {share} is not mounted on {path}; mount it there, or use --storage-path DIRECTORY if its files are elsewhere"
        )));
    }
    Ok(path)
}

/// Whether a file system is mounted at a path. Otherwise its files were written while nothing was mounted, and objects would seem to be
/// missing.
fn is_mounted(path: &Path) -> bool {
    let statx = |path: &Path| rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    let found = match statx(path) {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return false,
        // No permission, for example. Opening it gives the error.
        Err(_) => return true,
    };
    // Linux 5.8 has a flag for it. Before, only bind mounts of the same file system are not detected.
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    statx(&path.join("..")).is_ok_and(|parent| device(&parent) != device(&found) || parent.stx_ino == found.stx_ino)
}

/// The directory with all containers. It is opened once, because a chain may have more members than a process may have open files.
#[derive(Debug, Clone)]
pub struct Root {
    opened: Arc<OwnedFd>,
    path: PathBuf,
}

impl Root {
    /// Opens the directory. It may be a symbolic link; nothing below it may.
    ///
    /// # Errors
    /// [`StorageErrorKind::Configuration`] if it is not a directory.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        // Once the root is open, a later mount or unmount does not make objects seem to be missing.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => StorageError::configuration(format!(
                "{} is not a directory ({errno}); check that the file system is mounted, or use --storage-path DIRECTORY",
                path.display()
            )),
            errno => failure(errno, "open", &path.display().to_string()),
        })?;
        Ok(Self { opened: Arc::new(opened), path: path.to_owned() })
    }

    /// Returns a container. Cinder joins paths, so an absolute name replaces the root. It is accepted if it is below the root.
    ///
    /// # Errors
    /// [`StorageErrorKind::NotFollowed`] if the name leads out of the root. Whether the container exists is checked later.
    pub fn container(&self, container: &str) -> Result<PosixStore, StorageError> {
        let location = self.path.join(container).display().to_string();
        let below = Path::new(container).strip_prefix(&self.path).ok().and_then(Path::to_str).unwrap_or(container);
        let names = below.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect::<Vec<_>>();
        if below.starts_with('/') || container.contains('\0') || names.is_empty() || names.iter().any(|name| name == "..") {
            let root = self.path.display();
            return Err(StorageError::new(
                StorageErrorKind::NotFollowed,
                format!("the container {container:?} leads out of {root} and is not read; use --storage-path with a directory above it"),
            ));
        }
        Ok(PosixStore { root: self.clone(), container: names, location, is_tree: false, without_openat2: AtomicBool::new(false) })
    }

    /// Returns all containers as one, in which the name of an object is its path below the root.
    pub fn tree(&self) -> PosixStore {
        let location = self.path.display().to_string();
        PosixStore { root: self.clone(), container: vec![".".to_owned()], location, is_tree: true, without_openat2: AtomicBool::new(false) }
    }
}

/// A directory of objects.
#[derive(Debug)]
pub struct PosixStore {
    root: Root,
    container: Vec<String>,
    location: String,
    /// Whether its pages list the files of all directories below it.
    is_tree: bool,
    /// The kernel or a sandbox has no `openat2`.
    without_openat2: AtomicBool,
}

impl PosixStore {
    /// Returns the path of a name in the container, for messages.
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    /// Opens the path `names` below a directory without following links.
    fn walk(&self, from: BorrowedFd<'_>, names: &[&str], flags: OFlags) -> Result<OwnedFd, Errno> {
        if !self.without_openat2.load(Ordering::Relaxed) {
            let way = names.join("/");
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            // EAGAIN: a directory of the path was renamed at the same time.
            let mut tries = 0..8;
            loop {
                match rustix::fs::openat2(from, way.as_str(), flags, Mode::empty(), resolve) {
                    Err(Errno::AGAIN) if tries.next().is_some() => {}
                    // Missing before Linux 5.6. Old sandboxes return EPERM for unknown system calls.
                    Err(Errno::NOSYS | Errno::PERM) => break,
                    result => return result,
                }
            }
        }
        let opened = walk_by_name(from, names, flags)?;
        self.without_openat2.store(true, Ordering::Relaxed);
        Ok(opened)
    }

    /// Opens the container.
    fn container(&self, flags: OFlags) -> Result<OwnedFd, StorageError> {
        let names: Vec<&str> = self.container.iter().map(String::as_str).collect();
        self.walk(self.root.opened.as_fd(), &names, flags).map_err(|errno| match errno {
            Errno::NOENT if self.is_root_empty() => StorageError::configuration(format!(
                "{} is empty; check that the file system is mounted, or use --storage-path DIRECTORY",
                self.root.path.display()
            )),
            // A name that is too long cannot exist.
            Errno::NOENT | Errno::NAMETOOLONG => {
                StorageError::new(StorageErrorKind::NoContainer, format!("the directory {} does not exist", self.location))
            }
            errno => self.failure(errno, "open the directory", &self.location),
        })
    }

    /// Whether the root is empty. Then most likely the file system is not mounted, and no backup may be called missing.
    fn is_root_empty(&self) -> bool {
        let opened = rustix::fs::openat(&self.root.opened, ".", LISTED, Mode::empty());
        let Ok(mut entries) = opened.and_then(Dir::new) else { return false };
        entries.all(|entry| entry.is_ok_and(|entry| is_dots(entry.file_name().to_bytes())))
    }

    /// Opens the directory of a name, and returns it with the last part of the name.
    fn place<'a>(&self, name: &'a str) -> Result<(OwnedFd, &'a str), StorageError> {
        let mut names: Vec<&str> = name.split('/').collect();
        if name.contains('\0') || names.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(StorageError::new(
                StorageErrorKind::NotFollowed,
                format!("the name {name:?} leads out of {} and is not read", self.location),
            ));
        }
        let last = names.pop().unwrap_or(name);
        let container = self.container(PASSAGE)?;
        if names.is_empty() {
            return Ok((container, last));
        }
        let parent = self.walk(container.as_fd(), &names, PASSAGE).map_err(|errno| self.object_failure(errno, "look at", name))?;
        Ok((parent, last))
    }

    fn object_failure(&self, errno: Errno, what: &str, name: &str) -> StorageError {
        let path = self.path(name);
        match errno {
            // A name that is too long cannot exist.
            Errno::NOENT | Errno::NAMETOOLONG => StorageError::new(StorageErrorKind::NoObject, format!("the file {path} does not exist")),
            errno => self.failure(errno, what, &path),
        }
    }

    /// Converts an error. A share that is mounted "soft" also gives EIO while its server does not respond. So after EIO the root is
    /// read from the server: if this fails, the error is transient.
    fn failure(&self, errno: Errno, what: &str, path: &str) -> StorageError {
        let error = failure(errno, what, path);
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        let answers = || rustix::fs::statx(&self.root.opened, "", flags, StatxFlags::BASIC_STATS).is_ok();
        if error.kind == StorageErrorKind::Media && !answers() {
            return StorageError { kind: StorageErrorKind::Transient, ..error };
        }
        error
    }

    fn io_failure(&self, error: &io::Error, name: &str) -> StorageError {
        self.failure(Errno::from_io_error(error).unwrap_or(Errno::IO), "read", &self.path(name))
    }

    /// Reads the attributes of an entry of a directory; `None` if it was deleted meanwhile.
    fn listed(&self, dir: BorrowedFd<'_>, entry: impl Arg, name: String) -> Result<Option<ObjectInfo>, StorageError> {
        match rustix::fs::statat(dir, entry, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(info(name, &stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failure(errno, "look at", &self.path(&name))),
        }
    }

    /// Adds the files below a directory whose paths come after `after`, until there is a page of them. Returns whether there are no more.
    /// Directories whose names begin with a dot are not searched: they hold snapshots of a file server, or what a user removed.
    fn list_tree(&self, dir: OwnedFd, folder: &str, after: &str, page: &mut Vec<ObjectInfo>) -> Result<bool, StorageError> {
        let cannot = |errno| self.failure(errno, "list", &self.path(folder));
        let mut entries = Dir::new(dir).map_err(cannot)?;
        let mut last: Option<String> = None;
        loop {
            let (mut paths, mut is_last) = (BTreeSet::new(), true);
            entries.rewind();
            while let Some(entry) = entries.read() {
                let entry = entry.map_err(cannot)?;
                // A name that is not UTF-8 is not one of Cinder's.
                let Ok(name) = entry.file_name().to_str() else { continue };
                let kind = match entry.file_type() {
                    FileType::Unknown => rustix::fs::statat(entries.fd().map_err(cannot)?, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                    known => known,
                };
                // With its slash, a directory sorts like the paths in it.
                let path = if kind.is_dir() { format!("{folder}{name}/") } else { format!("{folder}{name}") };
                let is_searched =
                    if kind.is_dir() { !name.starts_with('.') && after < end_of(&path).as_str() } else { path.as_str() > after };
                if is_searched && last.as_ref().is_none_or(|last| path > *last) {
                    paths.insert(path);
                }
                if paths.len() > PAGE {
                    paths.pop_last();
                    is_last = false;
                }
            }
            for path in paths {
                let name = path.strip_prefix(folder).unwrap_or_default();
                if let Some(directory) = name.strip_suffix('/') {
                    let opened = self.walk(entries.fd().map_err(cannot)?, &[directory], LISTED);
                    let is_done = match opened {
                        Ok(opened) => self.list_tree(opened, &path, after, page)?,
                        // Only the check of the file system uses this directory.
                        Err(Errno::ACCESS) if path == "lost+found/" => true,
                        Err(Errno::NOENT) => true,
                        Err(errno) => return Err(self.failure(errno, "list", &self.path(&path))),
                    };
                    if !is_done {
                        return Ok(false);
                    }
                } else if page.len() == PAGE {
                    return Ok(false);
                } else {
                    page.extend(self.listed(entries.fd().map_err(cannot)?, name, path.clone())?);
                }
                last = Some(path);
            }
            if is_last {
                return Ok(true);
            }
        }
    }

    fn check_regular(&self, name: &str, stat: &Stat) -> Result<(), StorageError> {
        let path = self.path(name);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(()),
            FileType::Symlink => {
                // Cinder would follow it, but it may lead anywhere.
                let text = format!("{path} is a symbolic link, which is not followed; its target was not read");
                return Err(StorageError::new(StorageErrorKind::NotFollowed, text));
            }
            FileType::Directory => "a directory",
            FileType::Fifo => "a named pipe",
            FileType::Socket => "a socket",
            FileType::BlockDevice | FileType::CharacterDevice => "a device",
            _ => "something unknown",
        };
        Err(StorageError::new(StorageErrorKind::NotAnObject, format!("{path} is {kind} and not a regular file; it is not read")))
    }
}

/// Does what `openat2` does, for kernels without it: opens one name after the other, without following links.
fn walk_by_name(from: BorrowedFd<'_>, names: &[&str], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let (last, passed) = names.split_last().ok_or(Errno::INVAL)?;
    for name in passed {
        at = Some(rustix::fs::openat(at.as_ref().map_or(from, |at| at.as_fd()), *name, PASSAGE, Mode::empty())?);
    }
    rustix::fs::openat(at.as_ref().map_or(from, |at| at.as_fd()), *last, flags, Mode::empty())
}

fn info(name: String, stat: &Stat) -> ObjectInfo {
    let is_plain = FileType::from_raw_mode(stat.st_mode).is_file();
    ObjectInfo {
        name,
        size: if is_plain { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        modified: i32::try_from(stat.st_mtime_nsec).ok().and_then(|nanos| Timestamp::new(stat.st_mtime, nanos).ok()),
        md5: None,
    }
}

/// A text after all paths in a directory, whose path ends with a slash.
fn end_of(directory: &str) -> String {
    format!("{directory}\u{10ffff}")
}

fn is_dots(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Converts an error of the operating system.
fn failure(errno: Errno, what: &str, path: &str) -> StorageError {
    let (kind, hint) = match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            let hint = "; the path has a link, which is not followed, or something else that is not a directory: replace a link by a \
                        mount of its target (mount --bind), or use --storage-path with a directory without links below it";
            (StorageErrorKind::NotFollowed, hint)
        }
        Errno::ISDIR => (StorageErrorKind::NotAnObject, "; it is not a regular file"),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => (StorageErrorKind::Permission, "; run this as the user of cinder-backup or as root"),
        Errno::STALE
        | Errno::TIMEDOUT
        | Errno::AGAIN
        | Errno::INTR
        | Errno::NOTCONN
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::SHUTDOWN
        | Errno::BUSY
        | Errno::NOLCK
        | Errno::TXTBSY
        // The path to the disk, not the disk.
        | Errno::NOLINK
        // Limits of this machine, which may have room again later.
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM
        | Errno::NOBUFS => (StorageErrorKind::Transient, ""),
        // EIO; a wrong checksum of the file system or of the disk; an invalid structure; a medium or target error of the block layer;
        // and a missing device.
        //
        // Source: `blk_errors` in block/blk-core.c; EFSCORRUPTED and EFSBADCRC of XFS, ext4 and others.
        Errno::IO
        | Errno::UCLEAN
        | Errno::BADMSG
        | Errno::ILSEQ
        | Errno::NODATA
        | Errno::REMOTEIO
        | Errno::NOMEDIUM
        | Errno::NXIO
        | Errno::NODEV => (StorageErrorKind::Media, "; the disk or its file system cannot read it: see the kernel's log (dmesg)"),
        _ => (StorageErrorKind::Protocol, ""),
    };
    let reason = io::Error::from(errno);
    StorageError::new(kind, format!("cannot {what} {path}: {reason}{hint}"))
}

impl ObjectStore for PosixStore {
    fn location(&self) -> &str {
        &self.location
    }

    fn concurrency(&self) -> usize {
        std::thread::available_parallelism().map_or(1, NonZero::get)
    }

    /// Lists what Cinder's driver lists: the entries of the directory, including links and directories, on which a restore would
    /// fail; their size is 0. If the prefix has a `/`, the entries of that directory.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let cannot = |errno| self.failure(errno, "list", &self.location);
        let (folder, begins) = match prefix.rsplit_once('/') {
            Some((folder, begins)) => (format!("{folder}/"), begins),
            None => (String::new(), prefix),
        };
        let opened = if folder.is_empty() {
            self.container(LISTED)?
        } else {
            // `place` checks the name and opens the parent of any file in this directory.
            let name = format!("{folder}x");
            let Some((parent, _)) = StorageError::none_if_absent(self.place(&name))? else { return Ok(()) };
            rustix::fs::openat(&parent, ".", LISTED, Mode::empty()).map_err(cannot)?
        };
        let mut entries = Dir::new(opened).map_err(cannot)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(cannot)?;
            let bytes = entry.file_name().to_bytes();
            if is_dots(bytes) || !bytes.starts_with(begins.as_bytes()) {
                continue;
            }
            // A name that is not UTF-8 is not an object of Cinder, but it must be reported.
            let name = format!("{folder}{}", String::from_utf8_lossy(bytes));
            let Some(found) = self.listed(entries.fd().map_err(cannot)?, entry.file_name(), name)? else { continue };
            if each(found).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Reads all of the directory for each page. Its subdirectories are searched only in a tree.
    fn list_page(&self, after: &str) -> Result<Option<ListedPage>, StorageError> {
        let cannot = |errno| self.failure(errno, "list", &self.location);
        if self.is_tree {
            let mut page = ListedPage::default();
            page.is_last = self.list_tree(self.container(LISTED)?, "", after, &mut page.objects)?;
            return Ok(Some(page));
        }
        let mut entries = Dir::new(self.container(LISTED)?).map_err(cannot)?;
        let (mut names, mut is_last) = (BTreeSet::new(), true);
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(cannot)?;
            let Ok(name) = entry.file_name().to_str() else { return Ok(None) };
            if name > after && !is_dots(name.as_bytes()) {
                names.insert(name.to_owned());
            }
            if names.len() > PAGE {
                names.pop_last();
                is_last = false;
            }
        }
        let mut objects = Vec::new();
        for name in names {
            objects.extend(self.listed(entries.fd().map_err(cannot)?, name.clone(), name)?);
        }
        Ok(Some(ListedPage { objects, is_last }))
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        let cannot = |errno| self.object_failure(errno, "look at", name);
        let place = self.place(name);
        let stat = place.and_then(|(parent, last)| rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(cannot));
        let Some(stat) = StorageError::none_if_absent(stat)? else { return Ok(None) };
        self.check_regular(name, &stat).map(|()| Some(info(name.to_owned(), &stat)))
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        let cannot = |errno| self.object_failure(errno, "open", name);
        let (parent, last) = self.place(name)?;
        // Opening a device can have effects, so the type is checked before the open, and again after it.
        let stat = rustix::fs::statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(cannot)?;
        self.check_regular(name, &stat)?;
        let opened = self.walk(parent.as_fd(), &[last], PLAIN).map_err(cannot)?;
        let stat = rustix::fs::fstat(&opened).map_err(cannot)?;
        self.check_regular(name, &stat)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (start, end) = range.map_or((0, u64::MAX), |range| (range.start, range.end));
        // Only an optimisation, which not every file system supports.
        let _ = rustix::fs::fadvise(&opened, start, NonZero::new(end.min(size).saturating_sub(start)), Advice::Sequential);
        let mut file = File::from(opened);
        if start > 0 && start < size {
            file.seek(SeekFrom::Start(start)).map_err(|error| self.io_failure(&error, name))?;
        }
        let length = if start < size || start == 0 { end.saturating_sub(start) } else { 0 };
        Ok(Box::new(FileReader { file: file.take(length), store: self, name: name.to_owned() }))
    }
}

/// A range of a file.
struct FileReader<'a> {
    file: Take<File>,
    store: &'a PosixStore,
    name: String,
}

impl Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.file.read(out).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => self.store.io_failure(&error, &self.name).into_io(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
