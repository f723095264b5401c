//! The posix driver on real directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;
use crate::config::CinderConf;
use crate::storage::conformance;

/// A root with an empty container `ab/cd/c`, and a file beside the root.
struct Place {
    top: TempDir,
}

impl Place {
    fn new() -> Self {
        let top = TempDir::new().unwrap();
        fs::create_dir_all(top.path().join("root/ab/cd/c")).unwrap();
        fs::write(top.path().join("outside"), "outside").unwrap();
        Self { top }
    }

    fn root(&self) -> PathBuf {
        self.top.path().join("root")
    }

    fn container(&self) -> PathBuf {
        self.root().join("ab/cd/c")
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.container().join(name), bytes).unwrap();
    }

    /// Returns the store, and one as on a kernel without `openat2`.
    fn stores(&self) -> [PosixStore; 2] {
        [false, true].map(|without| {
            let store = open(&self.root(), "ab/cd/c").unwrap();
            store.without_openat2.store(without, Ordering::Relaxed);
            store
        })
    }
}

fn open(root: &Path, container: &str) -> Result<PosixStore, StorageError> {
    Root::open(root)?.container(container)
}

fn listed(store: &PosixStore, prefix: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    store
        .list(prefix, &mut |info| {
            found.push((info.name, info.size));
            ControlFlow::Continue(())
        })
        .unwrap();
    found.sort();
    found
}

fn opening_fails(store: &PosixStore, name: &str) -> StorageError {
    store.open(name, None).err().unwrap_or_else(|| panic!("{name:?} opens"))
}

fn options(conf: &str) -> StorageOptions {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), conf).unwrap();
    let conf = CinderConf::load(&[file.path().to_owned()], &[]).unwrap();
    StorageOptions::new(conf, &[]).unwrap()
}

#[test]
fn conforms_to_the_trait() {
    let place = Place::new();
    for (name, bytes) in conformance::content(false) {
        place.put(&name, &bytes);
    }
    for store in place.stores() {
        conformance::check(&store, false);
    }
}

#[test]
fn modification_times_are_those_of_the_files() {
    let place = Place::new();
    place.put("p-00001", b"x");
    let expected = fs::metadata(place.container().join("p-00001")).unwrap();
    let [store, _] = place.stores();
    let modified = store.stat("p-00001").unwrap().unwrap().modified.unwrap();
    assert_eq!((modified.as_second(), i64::from(modified.subsec_nanosecond())), (expected.mtime(), expected.mtime_nsec()));
}

#[test]
fn names_that_lead_elsewhere_are_not_read() {
    let place = Place::new();
    place.put("x", b"x");
    let absolute = place.top.path().join("outside").display().to_string();
    for store in place.stores() {
        let names =
            ["", ".", "..", "../c/x", "../../../../outside", "/etc/hostname", &absolute, "a/../x", "./x", "x/", "x//y", "x\0", "\0"];
        for name in names {
            assert_eq!(opening_fails(&store, name).kind, StorageErrorKind::NotFollowed, "{name:?}");
            assert_eq!(store.stat(name).unwrap_err().kind, StorageErrorKind::NotFollowed, "{name:?}");
        }
        for prefix in ["../", "/", "/etc/", "../../../out", "a/../", "./"] {
            let error = store.list(prefix, &mut |info| panic!("{info:?}")).unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::NotFollowed, "{prefix:?}");
        }
        assert_eq!(store.stat(&"x".repeat(5000)).unwrap(), None);
        assert_eq!(opening_fails(&store, &"x".repeat(5000)).kind, StorageErrorKind::NoObject);
    }
    for container in ["", "/", ".", "./", "..", "ab/..", "../root", "/etc", "ab\0", "ab/../ab"] {
        let error = open(&place.root(), container).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::NotFollowed, "{container:?}");
    }
    // Absolute names below the root.
    let absolute = place.root().join("ab/cd/c").display().to_string();
    for container in ["ab/cd/c/", "ab//cd/./c", &absolute, &format!("{absolute}/./")] {
        let store = open(&place.root(), container).unwrap();
        assert!(store.stat("x").unwrap().is_some(), "{container:?}");
    }
}

#[test]
fn only_regular_files_are_read() {
    let place = Place::new();
    let at = |name: &str| place.container().join(name);
    place.put("p-plain", b"12345");
    symlink("p-plain", at("p-link")).unwrap();
    symlink(place.top.path().join("outside"), at("p-link-out")).unwrap();
    symlink("/dev/zero", at("p-link-device")).unwrap();
    symlink("p-nothing", at("p-link-broken")).unwrap();
    fs::create_dir(at("p-directory")).unwrap();
    symlink(".", at("p-loop")).unwrap();
    rustix::fs::mkfifoat(CWD, at("p-fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    let _socket = UnixListener::bind(at("p-socket")).unwrap();
    let mut expected = vec![("p-plain".to_owned(), 5)];
    let odd = ["p-directory", "p-fifo", "p-link", "p-link-broken", "p-link-device", "p-link-out", "p-loop", "p-socket"];
    expected.extend(odd.map(|name| (name.to_owned(), 0)));
    expected.sort();
    for store in place.stores() {
        for name in odd {
            let is_link = name.contains("link") || name == "p-loop";
            let kind = if is_link { StorageErrorKind::NotFollowed } else { StorageErrorKind::NotAnObject };
            assert_eq!(opening_fails(&store, name).kind, kind, "{name}");
            assert_eq!(store.stat(name).unwrap_err().kind, kind, "{name}");
        }
        assert_eq!(opening_fails(&store, "p-loop/p-plain").kind, StorageErrorKind::NotFollowed);
        assert_eq!(opening_fails(&store, "p-plain/x").kind, StorageErrorKind::NotFollowed);
        assert_eq!(listed(&store, "p-"), expected);
    }
}

#[test]
fn a_fifo_that_replaces_a_file_does_not_block() {
    let place = Place::new();
    rustix::fs::mkfifoat(CWD, place.container().join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    let [store, by_name] = place.stores();
    for store in [&store, &by_name] {
        let container = store.container(PASSAGE).unwrap();
        // What `open` does after its first check.
        let opened = store.walk(container.as_fd(), &["fifo"], PLAIN).unwrap();
        let stat = rustix::fs::fstat(&opened).unwrap();
        assert_eq!(store.check_regular("fifo", &stat).unwrap_err().kind, StorageErrorKind::NotAnObject);
    }
}

#[test]
fn a_container_behind_a_link_is_not_entered() {
    let place = Place::new();
    fs::create_dir(place.top.path().join("elsewhere")).unwrap();
    fs::write(place.top.path().join("elsewhere/x"), "x").unwrap();
    symlink("../elsewhere", place.root().join("link")).unwrap();
    fs::create_dir(place.root().join("in")).unwrap();
    symlink("../../elsewhere", place.root().join("in/link")).unwrap();
    fs::write(place.root().join("file"), "x").unwrap();
    for without in [false, true] {
        for container in ["link", "in/link", "file", "file/x", "link/x"] {
            let store = open(&place.root(), container).unwrap();
            store.without_openat2.store(without, Ordering::Relaxed);
            assert_eq!(store.stat("x").unwrap_err().kind, StorageErrorKind::NotFollowed, "{container}");
            let error = store.list("", &mut |info| panic!("{info:?}")).unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::NotFollowed, "{container}");
            assert!(error.text.contains("mount --bind") && error.text.contains("--storage-path"), "{error}");
        }
    }
    // The root may be a link.
    symlink("root", place.top.path().join("root-link")).unwrap();
    place.put("x", b"x");
    assert!(open(&place.top.path().join("root-link"), "ab/cd/c").unwrap().stat("x").unwrap().is_some());
}

#[test]
fn a_missing_container_is_distinguished_from_a_missing_file_system() {
    let place = Place::new();
    let store = open(&place.root(), "ab/cd/other").unwrap();
    assert_eq!(store.stat("x").unwrap_err().kind, StorageErrorKind::NoContainer);
    assert_eq!(opening_fails(&store, "x").kind, StorageErrorKind::NoContainer);
    assert_eq!(store.list("", &mut |_| ControlFlow::Continue(())).unwrap_err().kind, StorageErrorKind::NoContainer);

    let empty = place.top.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = open(&empty, "ab").unwrap().stat("x").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Configuration);
    assert!(error.text.contains("is empty; check that the file system is mounted"), "{error}");
    for path in ["nothing", "outside"] {
        let error = open(&place.top.path().join(path), "ab").unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration, "{error}");
    }
}

#[test]
fn names_that_are_not_utf8_are_listed() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    fs::write(place.container().join(std::ffi::OsStr::from_bytes(b"p-\xff")), "x").unwrap();
    let [store, _] = place.stores();
    assert_eq!(listed(&store, "p-"), [("p-\u{fffd}".to_owned(), 1)]);
}

#[test]
fn every_system_error_has_a_kind() {
    for (errno, kind) in [
        (Errno::IO, StorageErrorKind::Media),
        (Errno::UCLEAN, StorageErrorKind::Media),
        (Errno::NODATA, StorageErrorKind::Media),
        (Errno::BADMSG, StorageErrorKind::Media),
        (Errno::ILSEQ, StorageErrorKind::Media),
        (Errno::REMOTEIO, StorageErrorKind::Media),
        (Errno::NXIO, StorageErrorKind::Media),
        (Errno::NODEV, StorageErrorKind::Media),
        // These say nothing about the data.
        (Errno::NOLINK, StorageErrorKind::Transient),
        (Errno::INVAL, StorageErrorKind::Protocol),
        (Errno::OPNOTSUPP, StorageErrorKind::Protocol),
        (Errno::OVERFLOW, StorageErrorKind::Protocol),
        (Errno::STALE, StorageErrorKind::Transient),
        (Errno::TIMEDOUT, StorageErrorKind::Transient),
        (Errno::MFILE, StorageErrorKind::Transient),
        (Errno::ACCESS, StorageErrorKind::Permission),
        (Errno::LOOP, StorageErrorKind::NotFollowed),
    ] {
        let error = failure(errno, "read", "/x");
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.text.starts_with("cannot read /x: "), "{error}");
    }
    let place = Place::new();
    let [store, _] = place.stores();
    let error = store.io_failure(&io::Error::from_raw_os_error(Errno::STALE.raw_os_error()), "x");
    assert_eq!(error.kind, StorageErrorKind::Transient);
}

#[test]
fn roots_are_the_mount_points_of_the_drivers() {
    let top = TempDir::new().unwrap();
    let base = top.path().display();
    let conf = format!(
        "[DEFAULT]\nstate_path = {base}/state\nbackup_mount_point_base = {base}/nfs\nbackup_share = fs1:/srv/cinder\n\
         glusterfs_backup_share = 1.2.3.4:backup_vol\n"
    );
    let options = options(&conf);
    assert_eq!(root(&options, Driver::Posix, None).unwrap(), top.path().join("state/backup"));
    // From `printf %s SHARE | md5sum`.
    let nfs = top.path().join("nfs/f13cebe55a59d5a2894ad58708914230");
    let gluster = top.path().join("state/backup_mount/881b40385d0ff7ce485d53e3a969f4f3");
    for (driver, path) in [(Driver::Nfs, nfs), (Driver::GlusterFs, gluster)] {
        let error = root(&options, driver, None).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.contains("is not mounted on"), "{error}");
        assert!(error.text.contains(&path.display().to_string()), "{error}");
        // Files that were written while nothing was mounted are not the share.
        fs::create_dir_all(path.join("ab")).unwrap();
        assert!(root(&options, driver, None).unwrap_err().text.contains("is not mounted on"));
        fs::remove_dir_all(&path).unwrap();
        symlink("/proc", &path).unwrap();
        assert_eq!(root(&options, driver, None).unwrap(), path);
    }
    let given = Path::new("/mnt/copy");
    for driver in [Driver::Posix, Driver::Nfs, Driver::GlusterFs] {
        assert_eq!(root(&options, driver, Some(given)).unwrap(), given);
    }
    assert_eq!(root(&options, Driver::S3, Some(given)).unwrap_err().kind, StorageErrorKind::Configuration);
}

#[test]
fn an_option_that_is_missing_is_named() {
    let options = options("[DEFAULT]\n");
    for (driver, name) in [(Driver::Nfs, "backup_share"), (Driver::GlusterFs, "glusterfs_backup_share")] {
        let error = root(&options, driver, None).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Configuration);
        assert!(error.text.starts_with(&format!("{name} is not set")), "{error}");
    }
}

#[test]
fn mount_points_are_detected() {
    assert!(is_mounted(Path::new("/proc")));
    assert!(is_mounted(Path::new("/")));
    let top = TempDir::new().unwrap();
    assert!(!is_mounted(top.path()));
    assert!(!is_mounted(&top.path().join("nothing")));
    fs::write(top.path().join("x"), "").unwrap();
    assert!(!is_mounted(top.path()));
    assert!(!is_mounted(&top.path().join("x/y")));
}

#[test]
fn a_read_error_keeps_its_kind() {
    // Address 0 of a process is not mapped, so reading it gives EIO.
    let store = open(Path::new("/proc"), &std::process::id().to_string()).unwrap();
    let mut reader = store.open("mem", None).unwrap();
    let error = reader.read(&mut [0; 16]).unwrap_err();
    let error = StorageError::of_io(&error).unwrap();
    assert_eq!(error.kind, StorageErrorKind::Media);
    assert!(error.text.starts_with(&format!("cannot read /proc/{}/mem: ", std::process::id())), "{error}");
}

#[test]
fn a_tree_is_listed_in_the_order_of_its_paths_page_by_page() {
    let place = Place::new();
    let root = place.root();
    // Between a directory and its files come names that begin like it: `a-` and `a.` before `a/`, and `a0` after it.
    for folder in ["a", "a-b", "a0", "b/c/d", "empty", ".snapshot", "many"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for name in ["a/1", "a/2", "a-b/1", "a.1", "a-", "a0/1", "b/1", "b/c/d/1", ".snapshot/1", ".hidden", "z"] {
        fs::write(root.join(name), "x").unwrap();
    }
    symlink(root.join("b"), root.join("link")).unwrap();
    for number in 0..PAGE * 2 {
        fs::write(root.join(format!("many/{number:06}")), "").unwrap();
        fs::create_dir(root.join(format!("many/dir{number}"))).unwrap();
    }
    fs::write(root.join("many/dir7/x"), "").unwrap();
    let store = Root::open(&root).unwrap().tree();
    let pages = |from: &str| {
        let (mut names, mut after, mut sizes) = (Vec::new(), from.to_owned(), Vec::new());
        loop {
            let page = store.list_page(&after).unwrap().unwrap();
            names.extend(page.objects.into_iter().map(|object| object.name));
            sizes.push(names.len());
            if page.is_last {
                return (names, sizes);
            }
            after = names.last().unwrap().clone();
        }
    };
    let (names, sizes) = pages("");
    assert!(names.is_sorted());
    assert_eq!((names.len(), sizes), (PAGE * 2 + 12, vec![PAGE, PAGE * 2, PAGE * 2 + 12]));
    let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.starts_with("many/0")).collect();
    assert_eq!(others, [".hidden", "a-", "a-b/1", "a.1", "a/1", "a/2", "a0/1", "b/1", "b/c/d/1", "link", "many/dir7/x", "z"][..]);
    for from in ["a", "a/1", "a/", "a0", "b/c/d/0", "many/000500", "many/dir7/x", "z", "~"] {
        let rest: Vec<String> = names.iter().filter(|name| name[..] > *from).cloned().collect();
        assert_eq!(pages(from).0, rest, "{from}");
    }
}
