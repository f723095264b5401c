//! A Ceph cluster, through its own commands `rbd` and `rados`, as Cinder's driver is configured to reach it.
//!
//! Backups in Ceph are images, snapshots and one small object of metadata, not numbered objects: so this is no
//! [`ObjectStore`](super::ObjectStore) but the questions that a check asks. Only reading commands are run, each with a
//! deadline. Never `rbd object-map check`, which takes the image's lock.

mod command;
pub mod export;
mod json;
mod message;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use self::command::{CommandStream, Invocation};
use self::export::ExportReader;
use super::{Health, StorageError, StorageErrorKind};
use crate::config::StorageOptions;

/// How long a command may take, or an export stand still.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long `rbd` and `rados` look for a monitor; they would take 5 minutes.
const CONNECT_SECONDS: u64 = 30;
/// How often a command is tried that failed in a way that may pass.
const ATTEMPTS: u32 = 2;
const PAUSE: Duration = Duration::from_millis(500);
/// An answer that is no list of extents is not longer than this: some ten thousand snapshots.
const OUTPUT_LIMIT: usize = 8 << 20;
/// A list of extents is not longer than this.
const EXTENTS_LIMIT: u64 = 16 << 30;
/// How many bytes of a pool's names are searched: a few hundred thousand names.
const NAMES_LIMIT: u64 = 16 << 20;

/// What there is to know of an RBD image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its name.
    pub name: String,
    /// Bytes, of its present state.
    pub size: u64,
    /// Bytes of an object of its data, 4 MiB unless somebody chose otherwise; never 0.
    pub object_size: u64,
    /// What the names of its data objects begin with, `rbd_data.<id>`.
    pub object_prefix: String,
    /// The pool of its data objects, where that is another one.
    pub data_pool: Option<String>,
    /// Its bytes are striped over several objects at a time, so that an extent is in no one object.
    pub striped: bool,
    /// It keeps a map of its objects that Ceph itself holds to be valid.
    pub has_object_map: bool,
    /// When it was made, by an OSD's clock.
    pub created: Option<Timestamp>,
    /// When it was last written, to a minute or so, by an OSD's clock.
    pub modified: Option<Timestamp>,
}

/// What there is to know of a snapshot of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The monitors number all snapshots of a pool in the order in which they are made.
    pub id: u64,
    /// Its name. Hostile text.
    pub name: String,
    /// Bytes of the image at that time.
    pub size: u64,
    /// When it was made, by an OSD's clock; `None` for one of a release before Luminous.
    pub created: Option<Timestamp>,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where, in bytes.
    pub offset: u64,
    /// Bytes; offset + length does not overflow.
    pub length: u64,
    /// There is data, not a hole that was made since.
    pub exists: bool,
}

/// What there is to know of a plain object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectStat {
    /// Bytes.
    pub size: u64,
    /// When it was last written, by the clock of the host that wrote it.
    pub modified: Option<Timestamp>,
}

/// Which extents of an image to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtentQuery<'a> {
    /// Only what changed since this snapshot.
    pub since: Option<&'a str>,
    /// As of this snapshot, not as of now.
    pub at: Option<&'a str>,
    /// Whole objects, as the image's object map knows them; else the data that really is in the pool.
    pub by_map: bool,
}

/// A Ceph cluster and who we are there.
#[derive(Debug, Clone)]
pub struct Cluster {
    user: String,
    conf: String,
    pool: String,
    rbd: OsString,
    rados: OsString,
    deadline: Duration,
    cancelled: Option<Arc<AtomicBool>>,
    /// What [`Pool::contains`] found, by pool.
    searched: Arc<Mutex<HashMap<String, bool>>>,
    health: Arc<Health>,
}

impl Cluster {
    /// The cluster of cinder.conf's `backup_ceph_user`, `backup_ceph_conf` and `backup_ceph_pool`.
    ///
    /// # Errors
    /// An option that cannot be read, or that Cinder's driver would refuse.
    pub fn new(options: &StorageOptions) -> Result<Self, StorageError> {
        let text = |name: &str| -> Result<String, StorageError> {
            match options.text(name) {
                Ok(Some(setting)) => Ok(setting.value),
                Ok(None) => Err(StorageError::new(
                    StorageErrorKind::Configuration,
                    format!("{name} is empty; give it in cinder.conf or as --storage-option {name}=…"),
                )),
                Err(error) => Err(StorageError::new(StorageErrorKind::Configuration, error.to_string())),
            }
        };
        Ok(Self::with(&text("backup_ceph_user")?, &text("backup_ceph_conf")?, &text("backup_ceph_pool")?))
    }

    /// A cluster, by the name of the account (without `client.`), the path of its ceph.conf and a pool.
    pub fn with(user: &str, conf: &str, pool: &str) -> Self {
        Self {
            user: user.to_owned(),
            conf: conf.to_owned(),
            pool: pool.to_owned(),
            rbd: "rbd".into(),
            rados: "rados".into(),
            deadline: DEADLINE,
            cancelled: None,
            searched: Arc::default(),
            health: Arc::default(),
        }
    }

    /// Runs these programs instead of `rbd` and `rados`.
    #[must_use]
    pub fn with_programs(mut self, rbd: impl Into<OsString>, rados: impl Into<OsString>) -> Self {
        (self.rbd, self.rados) = (rbd.into(), rados.into());
        self
    }

    /// Kills a command that gives no answer for so long.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Stops when this is set.
    #[must_use]
    pub fn with_cancelled(mut self, cancelled: Arc<AtomicBool>) -> Self {
        self.cancelled = Some(cancelled);
        self
    }

    /// Gives up when nothing useful comes for as long as this says.
    #[must_use]
    pub fn with_health(mut self, health: Arc<Health>) -> Self {
        self.health = health;
        self
    }

    /// Where a pool is, for messages.
    pub fn location(&self, pool: &str) -> String {
        format!("Ceph pool {pool} as client.{} by {}", self.user, self.conf)
    }

    /// The pool of the configuration, for backups whose row names none.
    pub fn default_pool(&self) -> &str {
        &self.pool
    }

    /// One of its pools.
    pub fn pool(&self, name: &str) -> Pool<'_> {
        Pool { cluster: self, name: name.to_owned() }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// A pool of a cluster.
#[derive(Debug, Clone)]
pub struct Pool<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Pool<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another pool of the same cluster.
    pub fn sibling(&self, name: &str) -> Self {
        Self { cluster: self.cluster, name: name.to_owned() }
    }

    /// An image; `None` only where the pool itself says that there is none.
    ///
    /// # Errors
    /// `NoContainer` for a missing pool.
    pub fn image(&self, image: &str) -> Result<Option<ImageInfo>, StorageError> {
        let answer = absent_is_none(self.ask_rbd("info", image))?;
        answer.map(|bytes| json::image(image, &bytes).map_err(|error| self.parse_error("info", image, &error))).transpose()
    }

    /// The snapshots of an image, the oldest first.
    ///
    /// # Errors
    /// As for every command.
    pub fn snapshots(&self, image: &str) -> Result<Vec<SnapshotInfo>, StorageError> {
        json::snapshots(&self.ask_rbd("snap ls", image)?).map_err(|error| self.parse_error("snap ls", image, &error))
    }

    /// Who has an image open for writing.
    ///
    /// # Errors
    /// As for every command.
    pub fn watchers(&self, image: &str) -> Result<Vec<String>, StorageError> {
        json::watchers(&self.ask_rbd("status", image)?).map_err(|error| self.parse_error("status", image, &error))
    }

    /// Who holds an image's lock. It stays when its holder dies.
    ///
    /// # Errors
    /// As for every command.
    pub fn locks(&self, image: &str) -> Result<Vec<String>, StorageError> {
        json::locks(&self.ask_rbd("lock ls", image)?).map_err(|error| self.parse_error("lock ls", image, &error))
    }

    /// Gives the extents of an image until `each` breaks, in the order of their offsets unless the image is striped.
    ///
    /// # Errors
    /// As for every command. What was given before an error is not the whole.
    pub fn extents(
        &self,
        image: &str,
        query: ExtentQuery<'_>,
        each: &mut dyn FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let words: &[&str] = if query.by_map { &["diff", "--whole-object"] } else { &["diff"] };
        let mut stream = self.rbd(words, image, query, "--format=json")?;
        let limit = io::BufReader::with_capacity(64 << 10, (&mut stream).take(EXTENTS_LIMIT));
        let result = json::extents(limit, each);
        match result {
            // The command's own error says more than the broken answer it left.
            Err(error) if error.is_io() || error.is_eof() => stream.finish().and(Err(self.parse_error("diff", image, &error))),
            Err(error) => Err(self.parse_error("diff", image, &error)),
            Ok(()) => stream.finish(),
        }
    }

    /// A plain object of the pool; `None` only where the pool itself says that there is none.
    ///
    /// # Errors
    /// `NoContainer` for a missing pool.
    pub fn object(&self, name: &str) -> Result<Option<ObjectStat>, StorageError> {
        let Some(answer) = absent_is_none(self.ask_rados(&["stat", name], name, OUTPUT_LIMIT))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&answer);
        match json::stat(&text) {
            Some((size, modified)) => Ok(Some(ObjectStat { size, modified })),
            None => Err(self.parse_error("rados stat", name, &"it names no size")),
        }
    }

    /// The bytes of a plain object that is not longer than `limit`; `None` where there is none.
    ///
    /// # Errors
    /// `Protocol` for an object that is longer.
    pub fn read_object(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, StorageError> {
        absent_is_none(self.ask_rados(&["get", name, "-"], name, limit))
    }

    /// Whether there is anything of an object in the pool: its present state, or one that a snapshot keeps.
    ///
    /// # Errors
    /// As for every command.
    pub fn has_object(&self, name: &str) -> Result<bool, StorageError> {
        Ok(absent_is_none(self.ask_rados(&["listsnaps", name], name, OUTPUT_LIMIT))?.is_some())
    }

    /// Whether the pool holds an image or an object with such a name. The names are listed once for all that ask, up to the first
    /// that fits.
    ///
    /// # Errors
    /// As for every command.
    pub fn contains(&self, is_image: fn(&str) -> bool, is_object: fn(&str) -> bool) -> Result<bool, StorageError> {
        let mut searched = self.cluster.searched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = searched.get(&self.name) {
            return Ok(*known);
        }
        let found = self.listing_has(&self.cluster.rbd, is_image)? || self.listing_has(&self.cluster.rados, is_object)?;
        searched.insert(self.name.clone(), found);
        Ok(found)
    }

    /// Whether the listing that a program prints, a name a line, has such a name in the part that is searched.
    fn listing_has(&self, program: &OsString, wanted: fn(&str) -> bool) -> Result<bool, StorageError> {
        self.retry(|| {
            let mut arguments = self.connection_arguments();
            arguments.push("ls".into());
            let mut stream = self.start(program, arguments, &format!("pool {}", self.name))?;
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

    /// All data of an image, or of a snapshot of it.
    ///
    /// # Errors
    /// As for every command, and later ones from the stream.
    pub fn export(&self, image: &str, at: Option<&str>) -> Result<ExportReader<impl Read + use<>>, StorageError> {
        let stream = self.rbd(&["export-diff", "--no-progress"], image, ExtentQuery { at, ..ExtentQuery::default() }, "-")?;
        ExportReader::new(stream, self.about(image, at))
    }

    fn about(&self, image: &str, at: Option<&str>) -> String {
        let at = at.map(|at| format!("@{at}")).unwrap_or_default();
        format!("{}/{image}{at}", self.name)
    }

    fn ask_rbd(&self, words: &str, image: &str) -> Result<Vec<u8>, StorageError> {
        let words: Vec<&str> = words.split(' ').collect();
        self.retry(|| self.rbd(&words, image, ExtentQuery::default(), "--format=json")?.read_all(OUTPUT_LIMIT))
    }

    /// Runs `rbd`. Names are given as the values of options, so that none can be taken for an option itself.
    fn rbd(&self, words: &[&str], image: &str, query: ExtentQuery<'_>, last: &str) -> Result<CommandStream, StorageError> {
        let ExtentQuery { since, at, .. } = query;
        let about = self.about(image, at);
        for name in [Some(image), at, since].into_iter().flatten() {
            // `rbd` would take what stands before a slash for another pool.
            if name.is_empty() || name.contains(['/', '@']) || name.contains(char::is_control) {
                return Err(StorageError::new(StorageErrorKind::NotAnObject, format!("{name:?} is no name of an image or snapshot")));
            }
        }
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        arguments.extend(self.connection_arguments());
        arguments.push(format!("--image={image}").into());
        arguments.extend(at.map(|at| format!("--snap={at}").into()));
        arguments.extend(since.map(|since| format!("--from-snap={since}").into()));
        arguments.push(last.into());
        self.start(&self.cluster.rbd, arguments, &about)
    }

    fn ask_rados(&self, words: &[&str], name: &str, limit: usize) -> Result<Vec<u8>, StorageError> {
        // Nothing of Cinder's begins with a dash, and `rados` has no other way to be given a name.
        if name.is_empty() || name.starts_with('-') {
            return Err(StorageError::new(StorageErrorKind::NotAnObject, format!("{name:?} is no name of an object")));
        }
        let mut arguments = self.connection_arguments();
        arguments.extend(words.iter().map(OsString::from));
        self.retry(|| self.start(&self.cluster.rados, arguments.clone(), &self.about(name, None))?.read_all(limit))
    }

    fn connection_arguments(&self) -> Vec<OsString> {
        let Cluster { user, conf, .. } = self.cluster;
        let connect = CONNECT_SECONDS.min(self.cluster.health.response_limit(self.cluster.deadline).as_secs().max(1));
        let mut words: Vec<OsString> = vec![format!("--id={user}").into(), format!("--conf={conf}").into()];
        words.push(format!("--client-mount-timeout={connect}").into());
        words.push(format!("--pool={}", self.name).into());
        words
    }

    fn start(&self, program: &OsString, arguments: Vec<OsString>, about: &str) -> Result<CommandStream, StorageError> {
        // `rados` takes even the value of an option for another one, and then says how it is used.
        if self.name.is_empty() || self.name.starts_with('-') || self.name.contains(char::is_control) {
            return Err(StorageError::new(StorageErrorKind::NotAnObject, format!("{:?} is no name of a pool", self.name)));
        }
        let Cluster { deadline, cancelled, health, .. } = self.cluster;
        health.wait(cancelled.as_deref().unwrap_or(&AtomicBool::new(false)))?;
        let deadline = health.response_limit(*deadline);
        CommandStream::start(Invocation { program, arguments, about, deadline, health: Arc::clone(health), cancelled: cancelled.clone() })
    }

    /// Runs a short command once more where that may help.
    fn retry<T>(&self, run: impl Fn() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let mut attempt = 1;
        loop {
            match run() {
                Err(error) if error.is_transient() && attempt < ATTEMPTS && !self.cluster.is_cancelled() => thread::sleep(PAUSE),
                result => return result,
            }
            attempt += 1;
        }
    }

    fn parse_error(&self, command: &str, name: &str, error: &dyn std::fmt::Display) -> StorageError {
        let text = format!("the answer of {command:?} about {} is not as Ceph writes it: {error}", self.about(name, None));
        StorageError::new(StorageErrorKind::Protocol, text)
    }
}

/// An image or object that is not there is no error.
fn absent_is_none<T>(result: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == StorageErrorKind::NoObject => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// A cluster whose commands are this script.
    fn scripted(text: &str) -> (TempDir, Cluster) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rbd");
        fs::write(dir.path().join("text"), format!("#!/bin/sh\n{text}\n")).unwrap();
        // Written by another process: a test that starts one meanwhile would pass on our open file, and a file that is
        // open for writing cannot be run.
        let copied = Command::new("install").arg("-m755").arg(dir.path().join("text")).arg(&path).status();
        assert!(copied.unwrap().success());
        let cluster = Cluster::with("cinder", "/etc/ceph/ceph.conf", "backups");
        let health = Health::new(crate::storage::WaitLimit { total: Duration::from_secs(60), probe_interval: Duration::ZERO });
        (dir, cluster.with_programs(PathBuf::from(&path), path).with_deadline(Duration::from_millis(400)).with_health(Arc::new(health)))
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
    fn names_that_rbd_would_misread_are_never_given_to_it() {
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
    fn absent_is_only_what_ceph_says_is_absent() {
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
    fn an_answer_that_breaks_off_gives_the_reason_of_the_command() {
        let (_dir, cluster) = scripted("printf '[{\"offset\":0,'; echo 'rbd: diff error: (5) Input/output error' >&2; exit 5");
        let result = cluster.pool("p").extents("x", ExtentQuery::default(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(kind(result), StorageErrorKind::Media);
        // Whole, and the command failed all the same.
        let (_dir, cluster) = scripted("echo '[]'; echo 'rbd: diff error: (5) Input/output error' >&2; exit 5");
        let result = cluster.pool("p").extents("x", ExtentQuery::default(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(kind(result), StorageErrorKind::Media);
    }

    #[test]
    fn a_pool_is_looked_through_once_and_not_beyond_the_first_name_that_fits() {
        let holds = |cluster: &Cluster, pool: &str| cluster.pool(pool).contains(|name| name == "an image", |name| name == "an object");
        let names = |text: &str| scripted(&format!("echo x >>$0.runs; case \"$*\" in *--pool=p*) {text};; esac"));
        for (text, found) in
            [("", false), ("printf 'a\nb'", false), ("echo an image; exec sleep 600", true), ("yes other | head -c 20000000", false)]
        {
            let (dir, cluster) = names(text);
            let cluster = cluster.with_deadline(Duration::from_secs(20));
            for _ in 0..2 {
                assert_eq!(holds(&cluster, "p").unwrap(), found, "{text}");
            }
            let runs = fs::read_to_string(dir.path().join("rbd.runs")).unwrap().lines().count();
            assert_eq!(runs, if found { 1 } else { 2 }, "both programs, or one: {text}");
            assert!(!holds(&cluster, "q").unwrap(), "another pool");
        }
        // What could not be listed is asked for again.
        let (dir, cluster) =
            names("[ -e $0.ok ] && exec echo an object; echo 'rbd: listing images failed: (1) Operation not permitted' >&2; exit 1");
        assert_eq!(kind(holds(&cluster, "p")), StorageErrorKind::Permission);
        fs::write(dir.path().join("rbd.ok"), "").unwrap();
        assert!(holds(&cluster, "p").unwrap());
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let (_dir, cluster) =
            scripted("if [ -e $0.once ]; then echo '[]'; else touch $0.once; echo 'x: (110) Connection timed out' >&2; exit 110; fi");
        assert_eq!(cluster.pool("p").snapshots("x").unwrap(), []);
    }
}
