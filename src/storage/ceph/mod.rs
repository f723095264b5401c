//! A Ceph cluster, read with its commands `rbd` and `rados` and with the configuration of Cinder's driver.
//!
//! A backup in Ceph is an image with snapshots and one small metadata object, not a series of numbered objects. So a [`Cluster`]
//! is not an [`ObjectStore`](super::ObjectStore) but has the queries that a check needs. All commands only read, and each has
//! a deadline. `rbd object-map check` is never used, because it takes the lock of the image.

mod command;
pub mod export;
mod json;
mod message;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use self::command::{CommandStream, Invocation};
use self::export::ExportReader;
use super::{Health, Limits, StorageError, StorageErrorKind};
use crate::config::StorageOptions;
use crate::parallel::lock;

/// How long a command may take, or an export may stall.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long `rbd` and `rados` try to reach a monitor. Their default is 5 minutes.
const CONNECT_SECONDS: u64 = 30;
/// The pause after a command with a transient error.
const PAUSE: Duration = Duration::from_millis(500);
/// The limit for output other than a list of extents, in bytes: some ten thousand snapshots.
const OUTPUT_LIMIT: usize = 8 << 20;
/// The limit for a list of extents, in bytes.
const EXTENTS_LIMIT: u64 = 16 << 30;
/// The limit for a name, in bytes; Ceph has none that is longer. A longer line is read as several names, which Cinder does not use.
const LONGEST_NAME: u64 = 16 << 10;
/// How many bytes of the names in a pool are searched: a few hundred thousand names.
const NAMES_LIMIT: u64 = 16 << 20;

/// The attributes of an RBD image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ImageInfo {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Current size in bytes.
    pub size: u64,
    /// Size of a data object in bytes, 4 MiB by default; never 0.
    pub object_size: u64,
    /// The prefix of the names of its data objects, `rbd_data.<id>`; empty for images of format 1.
    #[serde(rename = "block_name_prefix", default)]
    pub object_prefix: String,
    /// The pool of its data objects, if it is another one.
    pub data_pool: Option<String>,
    /// Over how many objects its bytes are striped.
    pub stripe_count: Option<u64>,
    /// `fast-diff` and others.
    #[serde(default)]
    pub features: Vec<String>,
    /// Which of its maps are invalid.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Creation time, by an OSD's clock.
    #[serde(rename = "create_timestamp", default, deserialize_with = "json::time")]
    pub created: Option<Timestamp>,
    /// Time of the last write, to about a minute, by an OSD's clock.
    #[serde(rename = "modify_timestamp", default, deserialize_with = "json::time")]
    pub modified: Option<Timestamp>,
}

impl ImageInfo {
    /// Whether its bytes are striped over several objects, so that an extent does not belong to a single object.
    pub fn is_striped(&self) -> bool {
        self.stripe_count.is_some_and(|count| count > 1)
    }

    /// Whether it has an object map that Ceph considers valid: Ceph itself does not trust one with an "invalid" flag.
    pub fn has_object_map(&self) -> bool {
        self.features.iter().any(|feature| feature == "fast-diff") && !self.flags.iter().any(|flag| flag.contains("invalid"))
    }
}

/// The attributes of a snapshot of an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SnapshotInfo {
    /// The monitors number the snapshots of a pool in the order of their creation.
    pub id: u64,
    /// Its name. Hostile text.
    pub name: String,
    /// Size of the image at that time, in bytes.
    pub size: u64,
    /// Creation time, by an OSD's clock; `None` for a snapshot of a release before Luminous.
    #[serde(rename = "timestamp", default, deserialize_with = "json::time")]
    pub created: Option<Timestamp>,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Extent {
    /// Position in bytes.
    pub offset: u64,
    /// Length in bytes; offset + length does not overflow.
    pub length: u64,
    /// The extent has data; otherwise it was discarded.
    #[serde(deserialize_with = "json::flag")]
    pub exists: bool,
}

/// The attributes of a RADOS object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectStat {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, by the clock of the writing host.
    pub modified: Option<Timestamp>,
}

/// Which extents of an image to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtentQuery<'a> {
    /// Only the extents that changed after this snapshot.
    pub since: Option<&'a str>,
    /// The state at this snapshot instead of the current state.
    pub at: Option<&'a str>,
    /// Whole objects according to the object map of the image, instead of the data in the pool.
    pub by_map: bool,
}

/// A Ceph cluster, with the account to use.
#[derive(Debug, Clone)]
pub struct Cluster {
    user: String,
    conf: String,
    pool: String,
    pub(crate) rbd: OsString,
    pub(crate) rados: OsString,
    /// A command that is silent for this long is killed.
    pub deadline: Duration,
    cancelled: Arc<AtomicBool>,
    /// The results of [`Pool::contains`], by pool.
    searched: Arc<Mutex<HashMap<String, bool>>>,
    health: Arc<Health>,
    limits: Arc<Limits>,
}

impl Cluster {
    /// Creates a cluster from `backup_ceph_user`, `backup_ceph_conf` and `backup_ceph_pool` of cinder.conf. Once `cancelled` is set,
    /// commands are stopped. `health` and `limits` are those of the cluster, which others may share: each command is a request, and the
    /// bytes of its stream count.
    ///
    /// # Errors
    /// An option that cannot be read, or that Cinder's driver would refuse.
    pub fn new(
        options: &StorageOptions,
        cancelled: Arc<AtomicBool>,
        health: Arc<Health>,
        limits: Arc<Limits>,
    ) -> Result<Self, StorageError> {
        let text = |name: &str| -> Result<String, StorageError> {
            let empty = || format!("{name} is empty; set it in cinder.conf or with --storage-option {name}=…");
            Ok(options.text(name)?.ok_or_else(|| StorageError::configuration(empty()))?.value)
        };
        let cluster = Self::with(&text("backup_ceph_user")?, &text("backup_ceph_conf")?, &text("backup_ceph_pool")?);
        Ok(Self { cancelled, health, limits, ..cluster })
    }

    /// Creates a cluster from the name of the account (without `client.`), the path of ceph.conf and a pool.
    pub fn with(user: &str, conf: &str, pool: &str) -> Self {
        Self {
            user: user.to_owned(),
            conf: conf.to_owned(),
            pool: pool.to_owned(),
            rbd: "rbd".into(),
            rados: "rados".into(),
            deadline: DEADLINE,
            cancelled: Arc::default(),
            searched: Arc::default(),
            health: Arc::default(),
            limits: Arc::default(),
        }
    }

    /// Describes where a pool is, for messages.
    pub fn location(&self, pool: &str) -> String {
        format!("Ceph pool {pool} as client.{} by {}", self.user, self.conf)
    }

    /// Returns the configured pool, for backups whose row has no container.
    pub fn default_pool(&self) -> &str {
        &self.pool
    }

    /// Returns the options that connect a command to the cluster as this program does.
    pub fn options(&self) -> [String; 2] {
        [format!("--id={}", self.user), format!("--conf={}", self.conf)]
    }

    /// Returns a pool of the cluster.
    pub fn pool(&self, name: &str) -> Pool<'_> {
        Pool { cluster: self, name: name.to_owned() }
    }
}

/// A pool of a cluster.
///
/// # Errors
/// Every query runs a command. It fails with `NoContainer` for a missing pool, `NotAnObject` for a name that a command would misread,
/// and otherwise with the kind that the messages of the command show.
#[derive(Debug, Clone)]
pub struct Pool<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Pool<'_> {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns another pool of the same cluster.
    pub fn sibling(&self, name: &str) -> Self {
        self.cluster.pool(name)
    }

    /// Reads the attributes of an image; `None` only if Ceph reports that it does not exist.
    pub fn image(&self, image: &str) -> Result<Option<ImageInfo>, StorageError> {
        StorageError::none_if_absent(self.ask_rbd("info", image, |bytes| json::image(image, bytes)))
    }

    /// Lists the snapshots of an image, the oldest first.
    pub fn snapshots(&self, image: &str) -> Result<Vec<SnapshotInfo>, StorageError> {
        self.ask_rbd("snap ls", image, json::snapshots)
    }

    /// Lists the clients that have an image open for writing.
    pub fn watchers(&self, image: &str) -> Result<Vec<String>, StorageError> {
        self.ask_rbd("status", image, json::watchers)
    }

    /// Lists the holders of the lock of an image. A lock remains after its holder has died.
    pub fn locks(&self, image: &str) -> Result<Vec<String>, StorageError> {
        self.ask_rbd("lock ls", image, json::locks)
    }

    /// Passes the extents of an image to `each` until it breaks, in the order of their offsets unless the image is striped.
    ///
    /// # Errors
    /// The extents before an error are not all of them.
    pub fn extents(
        &self,
        image: &str,
        query: ExtentQuery<'_>,
        each: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let words: &[&str] = if query.by_map { &["diff", "--whole-object"] } else { &["diff"] };
        let mut stream = self.rbd(words, image, query, "--format=json")?;
        let output = io::BufReader::with_capacity(64 << 10, (&mut stream).take(EXTENTS_LIMIT));
        match json::extents(output, each) {
            // The error of the command says more than its truncated output.
            Err(error) if error.is_io() || error.is_eof() => stream.finish().and(Err(self.parse_error("diff", image, &error))),
            Err(error) => Err(self.parse_error("diff", image, &error)),
            Ok(()) => stream.finish(),
        }
    }

    /// Reads the attributes of a RADOS object; `None` only if Ceph reports that it does not exist.
    pub fn object(&self, name: &str) -> Result<Option<ObjectStat>, StorageError> {
        let Some(answer) = StorageError::none_if_absent(self.ask_rados(&["stat", name], name, OUTPUT_LIMIT))? else { return Ok(None) };
        let stat = json::stat(&String::from_utf8_lossy(&answer));
        stat.map(Some).ok_or_else(|| self.parse_error("rados stat", name, &"it has no size"))
    }

    /// Reads a RADOS object of at most `limit` bytes; `None` if it does not exist.
    ///
    /// # Errors
    /// `Protocol` for an object that is longer.
    pub fn read_object(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
        StorageError::none_if_absent(self.ask_rados(&["get", name, "-"], name, limit))
    }

    /// Whether an object exists in the pool, now or in a snapshot.
    pub fn has_object(&self, name: &str) -> Result<bool, StorageError> {
        Ok(StorageError::none_if_absent(self.ask_rados(&["listsnaps", name], name, OUTPUT_LIMIT))?.is_some())
    }

    /// Whether the pool contains an image or an object whose name matches. The names are listed once for each pool, up to the first
    /// match.
    pub fn contains(&self, is_image: fn(&str) -> bool, is_object: fn(&str) -> bool) -> Result<bool, StorageError> {
        let mut searched = lock(&self.cluster.searched);
        if let Some(known) = searched.get(&self.name) {
            return Ok(*known);
        }
        let found = self.listing_has(&self.cluster.rbd, is_image)? || self.listing_has(&self.cluster.rados, is_object)?;
        searched.insert(self.name.clone(), found);
        Ok(found)
    }

    /// Passes the names of all images of the pool to `each`.
    ///
    /// # Errors
    /// The names before an error are not all of them.
    pub fn images(&self, each: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        self.listed(&self.cluster.rbd, each)
    }

    /// Passes the names of all RADOS objects of the pool to `each`, including those with the data of images.
    ///
    /// # Errors
    /// The names before an error are not all of them.
    pub fn objects(&self, each: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        self.listed(&self.cluster.rados, each)
    }

    fn listed(&self, program: &OsString, each: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        let mut arguments = self.connection_arguments();
        arguments.push("ls".into());
        let mut stream = self.start(program, arguments, format!("pool {}", self.name))?;
        let mut names = io::BufReader::new(&mut stream);
        let mut name = Vec::new();
        // If the stream fails, so does the command; its exit reports the error.
        while (&mut names).take(LONGEST_NAME).read_until(b'\n', &mut name).is_ok_and(|count| count > 0) {
            each(String::from_utf8_lossy(&name).trim_end_matches('\n'));
            name.clear();
        }
        stream.finish()
    }

    /// Whether the listing of a program, one name a line, has a matching name in the part that is searched.
    fn listing_has(&self, program: &OsString, wanted: fn(&str) -> bool) -> Result<bool, StorageError> {
        self.retry(|| {
            let mut arguments = self.connection_arguments();
            arguments.push("ls".into());
            let mut stream = self.start(program, arguments, format!("pool {}", self.name))?;
            let mut names = io::BufReader::new((&mut stream).take(NAMES_LIMIT));
            let mut name = Vec::new();
            // If the stream fails, so does the command; its exit reports the error.
            while names.read_until(b'\n', &mut name).is_ok_and(|count| count > 0) {
                if wanted(String::from_utf8_lossy(&name).trim_end_matches('\n')) {
                    return Ok(true);
                }
                name.clear();
            }
            let is_cut = names.get_ref().limit() == 0;
            if is_cut { Ok(false) } else { stream.finish().map(|()| false) }
        })
    }

    /// Exports the data of an image, or of one of its snapshots.
    ///
    /// # Errors
    /// The stream may fail later.
    pub fn export(&self, image: &str, at: Option<&str>) -> Result<ExportReader<impl Read + use<>>, StorageError> {
        let stream = self.rbd(&["export-diff", "--no-progress"], image, ExtentQuery { at, ..ExtentQuery::default() }, "-")?;
        ExportReader::new(stream, self.about(image, at))
    }

    fn about(&self, image: &str, at: Option<&str>) -> String {
        let at = at.map(|at| format!("@{at}")).unwrap_or_default();
        format!("{}/{image}{at}", self.name)
    }

    fn ask_rbd<T>(&self, words: &str, image: &str, parse: impl FnOnce(&[u8]) -> Result<T, serde_json::Error>) -> Result<T, StorageError> {
        let command: Vec<&str> = words.split(' ').collect();
        let answer = self.retry(|| self.rbd(&command, image, ExtentQuery::default(), "--format=json")?.read_all(OUTPUT_LIMIT))?;
        parse(&answer).map_err(|error| self.parse_error(words, image, &error))
    }

    /// Starts `rbd`. Names are passed as values of options, so that they cannot be read as options.
    fn rbd(&self, words: &[&str], image: &str, query: ExtentQuery<'_>, last: &str) -> Result<CommandStream, StorageError> {
        let ExtentQuery { since, at, .. } = query;
        for name in [Some(image), at, since].into_iter().flatten() {
            // `rbd` reads the text before a slash as a pool.
            if name.is_empty() || name.contains(['/', '@']) || name.contains(char::is_control) {
                return Err(StorageError::new(
                    StorageErrorKind::NotAnObject,
                    format!("{name:?} is not a valid name of an image or snapshot"),
                ));
            }
        }
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        arguments.extend(self.connection_arguments());
        arguments.push(format!("--image={image}").into());
        arguments.extend(at.map(|at| format!("--snap={at}").into()));
        arguments.extend(since.map(|since| format!("--from-snap={since}").into()));
        arguments.push(last.into());
        self.start(&self.cluster.rbd, arguments, self.about(image, at))
    }

    fn ask_rados(&self, words: &[&str], name: &str, limit: usize) -> Result<Vec<u8>, StorageError> {
        // No name of Cinder's begins with a dash, and `rados` takes names only as arguments.
        if name.is_empty() || name.starts_with('-') {
            return Err(StorageError::new(StorageErrorKind::NotAnObject, format!("{name:?} is not a valid object name")));
        }
        let mut arguments = self.connection_arguments();
        arguments.extend(words.iter().map(OsString::from));
        self.retry(|| self.start(&self.cluster.rados, arguments.clone(), self.about(name, None))?.read_all(limit))
    }

    fn connection_arguments(&self) -> Vec<OsString> {
        let Cluster { user, conf, health, deadline, .. } = self.cluster;
        let connect = CONNECT_SECONDS.min(health.response_limit(*deadline).as_secs().max(1));
        let pool = format!("--pool={}", self.name);
        [format!("--id={user}"), format!("--conf={conf}"), format!("--client-mount-timeout={connect}"), pool].map(OsString::from).into()
    }

    fn start(&self, program: &OsString, arguments: Vec<OsString>, about: String) -> Result<CommandStream, StorageError> {
        // `rados` reads the value of an option that begins with a dash as another option, and prints its usage.
        if self.name.is_empty() || self.name.starts_with('-') || self.name.contains(char::is_control) {
            return Err(StorageError::new(StorageErrorKind::NotAnObject, format!("{:?} is not a valid pool name", self.name)));
        }
        let Cluster { deadline, cancelled, health, limits, .. } = self.cluster;
        let slot = limits.slot(cancelled)?;
        health.wait(cancelled)?;
        limits.request(health, cancelled)?;
        CommandStream::start(Invocation {
            program: program.clone(),
            arguments,
            about,
            deadline: health.response_limit(*deadline),
            health: Arc::clone(health),
            cancelled: Arc::clone(cancelled),
            limits: Arc::clone(limits),
            slot,
        })
    }

    /// Runs a short command once more after a transient error.
    fn retry<T>(&self, run: impl Fn() -> Result<T, StorageError>) -> Result<T, StorageError> {
        match run() {
            Err(error) if error.is_transient() && !self.cluster.cancelled.load(Ordering::Relaxed) => {
                thread::sleep(PAUSE);
                run()
            }
            result => result,
        }
    }

    fn parse_error(&self, command: &str, name: &str, error: &dyn std::fmt::Display) -> StorageError {
        let about = self.about(name, None);
        StorageError::protocol(format!("the output of {command:?} about {about} is not in the format of Ceph: {error}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::fs;
    use std::num::NonZero;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// A cluster whose commands run this script.
    fn scripted(text: &str) -> (TempDir, Cluster) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rbd");
        fs::write(dir.path().join("text"), format!("#!/bin/sh\n{text}\n")).unwrap();
        // Another process writes the file: if this process did, a child that another test starts meanwhile would inherit the open
        // file, and a file that is open for writing cannot be executed.
        let copied = Command::new("install").arg("-m755").arg(dir.path().join("text")).arg(&path).status();
        assert!(copied.unwrap().success());
        let cluster = Cluster::with("cinder", "/etc/ceph/ceph.conf", "backups");
        let health = Health::new(crate::storage::WaitLimit { total: Duration::from_secs(60), probe_interval: Duration::ZERO });
        let program = OsString::from(path);
        (dir, Cluster { rbd: program.clone(), rados: program, deadline: Duration::from_millis(400), health: Arc::new(health), ..cluster })
    }

    fn kind<T>(result: Result<T, StorageError>) -> StorageErrorKind {
        result.err().unwrap().kind
    }

    #[test]
    fn the_command_is_the_one_that_an_administrator_would_type() {
        let (dir, cluster) = scripted("printf '%s\\n' \"$@\" >$0.args; echo '[]'");
        let pool = cluster.pool("odd -pool");
        pool.extents("volume-v.backup.b", ExtentQuery { since: Some("s1"), at: Some("s2"), by_map: true }, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let arguments = fs::read_to_string(dir.path().join("rbd.args")).unwrap();
        assert_eq!(
            arguments.lines().collect::<Vec<_>>(),
            [
                "diff",
                "--whole-object",
                "--id=cinder",
                "--conf=/etc/ceph/ceph.conf",
                "--client-mount-timeout=1",
                "--pool=odd -pool",
                "--image=volume-v.backup.b",
                "--snap=s2",
                "--from-snap=s1",
                "--format=json"
            ]
        );
    }

    #[test]
    fn no_more_commands_run_at_once_than_the_limit() {
        let (dir, cluster) = scripted("echo begin >>$0.log; sleep 0.1; echo end >>$0.log; echo '[]'");
        let limits = Arc::new(Limits::new(None, None, NonZero::new(2)).for_storage());
        let cluster = Cluster { deadline: DEADLINE, limits, ..cluster };
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| assert_eq!(cluster.pool("p").snapshots("x").unwrap(), []));
            }
        });
        let log = fs::read_to_string(dir.path().join("rbd.log")).unwrap();
        let running = log.lines().scan(0, |running, line| {
            *running += if line == "begin" { 1 } else { -1 };
            Some(*running)
        });
        assert_eq!((running.max(), log.lines().count()), (Some(2), 12));
    }

    #[test]
    fn two_exports_are_read_in_turn_although_one_command_may_run() {
        let (_dir, cluster) = scripted("head -c 3000000 /dev/zero");
        let limits = Arc::new(Limits::new(None, None, NonZero::new(1)).for_storage());
        let cluster = Cluster { deadline: DEADLINE, limits, ..cluster };
        let pool = cluster.pool("p");
        let mut streams = [(); 2].map(|()| pool.rbd(&["export-diff"], "x", ExtentQuery::default(), "-").unwrap());
        let mut piece = vec![0; 1 << 20];
        let mut read = 0;
        while let counts = streams.each_mut().map(|stream| stream.read(&mut piece).unwrap())
            && counts != [0, 0]
        {
            read += counts.iter().sum::<usize>();
        }
        assert_eq!(read, 6_000_000);
    }

    #[test]
    fn names_that_rbd_would_misread_are_refused() {
        let (dir, cluster) = scripted("touch $0.ran; echo '[]'");
        let pool = cluster.pool("backups");
        for name in ["", "other/image", "image@snap", "a\nb", "a\0b", "\u{1b}[0m"] {
            assert_eq!(kind(pool.image(name)), StorageErrorKind::NotAnObject, "{name:?}");
            assert_eq!(kind(pool.export("x", Some(name))), StorageErrorKind::NotAnObject, "{name:?}");
        }
        assert_eq!(kind(pool.object("--all")), StorageErrorKind::NotAnObject);
        for name in ["", "--help", "a\nb"] {
            assert_eq!(kind(cluster.pool(name).object("x")), StorageErrorKind::NotAnObject, "{name:?}");
            assert_eq!(kind(cluster.pool(name).image("x")), StorageErrorKind::NotAnObject, "{name:?}");
        }
        assert!(!dir.path().join("rbd.ran").exists());
    }

    #[test]
    fn only_ceph_reports_absence() {
        let says = |text: &str| scripted(&format!("echo \"{text}\" >&2; exit 2"));
        let (_dir, cluster) = says("rbd: error opening image x: (2) No such file or directory");
        assert_eq!(cluster.pool("p").image("x").unwrap(), None);
        assert_eq!(kind(cluster.pool("p").snapshots("x")), StorageErrorKind::NoObject);
        let (_dir, cluster) = says("rbd: error opening pool 'p': (2) No such file or directory");
        assert_eq!(kind(cluster.pool("p").image("x")), StorageErrorKind::NoContainer);
        let (_dir, cluster) = says("auth: unable to find a keyring on /x: (2) No such file or directory");
        assert_eq!(kind(cluster.pool("p").image("x")), StorageErrorKind::Authentication);
        let (_dir, cluster) = says("error stat-ing p/x: (2) No such file or directory");
        assert_eq!(cluster.pool("p").object("x").unwrap(), None);
        assert!(!cluster.pool("p").has_object("x").unwrap());
    }

    #[test]
    fn garbage_and_hangs_end_as_errors() {
        let (_dir, cluster) = scripted("echo '<html>'");
        let pool = cluster.pool("p");
        let mut none = |_| ControlFlow::Continue(());
        assert_eq!(kind(pool.image("x")), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.snapshots("x")), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.watchers("x")), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.locks("x")), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.extents("x", ExtentQuery::default(), &mut none)), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.object("x")), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.export("x", None)), StorageErrorKind::Protocol);
        assert_eq!(kind(pool.read_object("x", 3)), StorageErrorKind::Protocol);

        let (_dir, cluster) = scripted("exec sleep 600");
        let pool = cluster.pool("p");
        assert_eq!(kind(pool.image("x")), StorageErrorKind::Transient);
        assert_eq!(kind(pool.extents("x", ExtentQuery::default(), &mut none)), StorageErrorKind::Transient);
        assert_eq!(kind(pool.export("x", None)), StorageErrorKind::Transient);
        let (_dir, cluster) = scripted("yes '[' | tr -d '\\n'");
        assert_eq!(kind(cluster.pool("p").snapshots("x")), StorageErrorKind::Protocol);
    }

    #[test]
    fn truncated_output_gives_the_error_of_the_command() {
        let (_dir, cluster) = scripted("printf '[{\"offset\":0,'; echo 'rbd: diff error: (5) Input/output error' >&2; exit 5");
        let result = cluster.pool("p").extents("x", ExtentQuery::default(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(kind(result), StorageErrorKind::Media);
        // Complete output of a failed command.
        let (_dir, cluster) = scripted("echo '[]'; echo 'rbd: diff error: (5) Input/output error' >&2; exit 5");
        let result = cluster.pool("p").extents("x", ExtentQuery::default(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(kind(result), StorageErrorKind::Media);
    }

    #[test]
    fn a_pool_is_searched_once_and_only_up_to_the_first_match() {
        let holds = |cluster: &Cluster, pool: &str| cluster.pool(pool).contains(|name| name == "an image", |name| name == "an object");
        let names = |text: &str| scripted(&format!("echo x >>$0.runs; case \"$*\" in *--pool=p*) {text};; esac"));
        for (text, found) in
            [("", false), ("printf 'a\nb'", false), ("echo an image; exec sleep 600", true), ("yes other | head -c 20000000", false)]
        {
            let (dir, mut cluster) = names(text);
            cluster.deadline = Duration::from_secs(20);
            for _ in 0..2 {
                assert_eq!(holds(&cluster, "p").unwrap(), found, "{text}");
            }
            let runs = fs::read_to_string(dir.path().join("rbd.runs")).unwrap().lines().count();
            assert_eq!(runs, if found { 1 } else { 2 }, "both programs, or one: {text}");
            assert!(!holds(&cluster, "q").unwrap(), "another pool");
        }
        // A failed listing is repeated.
        let (dir, cluster) =
            names("[ -e $0.ok ] && exec echo an object; echo 'rbd: listing images failed: (1) Operation not permitted' >&2; exit 1");
        assert_eq!(kind(holds(&cluster, "p")), StorageErrorKind::Permission);
        fs::write(dir.path().join("rbd.ok"), "").unwrap();
        assert!(holds(&cluster, "p").unwrap());
    }

    #[test]
    fn transient_errors_are_retried() {
        let (_dir, cluster) =
            scripted("if [ -e $0.once ]; then echo '[]'; else touch $0.once; echo 'x: (110) Connection timed out' >&2; exit 110; fi");
        assert_eq!(cluster.pool("p").snapshots("x").unwrap(), []);
    }
}
