//! Where backups are, as the flags and cinder.conf say, and the options of every command that looks there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clap::Args;

use super::args::{span, whole_number};
use super::context::Context;
use super::error::{Error, Result};
use super::exit::Exit;
use crate::config::StorageOptions;
use crate::domain::text::shell_word;
use crate::domain::{Backup, Driver, Glance, Level, Listing, Policy};
use crate::storage::ceph::Cluster;
use crate::storage::{
    Health, Network, ObjectStore, RetryPolicy, RetryingStore, StorageError, StorageErrorKind, WaitLimit, gcs, posix, s3, swift,
};
use crate::verify::chunked::{ReadOptions, Share};
use crate::verify::{Assessment, Request, StorageAccess, Subject, Watch, ceph};

/// Where the storage is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Storage")]
pub struct PlaceArgs {
    /// Look for the backups of posix, nfs and glusterfs here, in place of the directory that cinder.conf names
    #[arg(long, value_name = "DIR")]
    pub storage_path: Option<PathBuf>,
    /// Override an option of cinder.conf that says where backups are: backup_s3_endpoint_url=https://… ; NAME=@FILE takes
    /// the value, a secret for one, from a file's first line; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub storage_option: Vec<String>,
    /// Reach Google Cloud Storage here, in place of its public address
    #[arg(long, value_name = "URL")]
    pub gcs_endpoint: Option<String>,
    /// Give up a storage that gives nothing useful for this long, over all attempts and backups [default: 1m]
    #[arg(long, value_name = "SPAN", value_parser = wait_limit)]
    pub storage_timeout: Option<Duration>,
}

/// How the storage is reached and read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    /// Where it is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The pool of the source volumes, to compare Ceph backups with the snapshots that they were made of
    #[arg(long, value_name = "POOL")]
    pub ceph_source_pool: Option<String>,
    /// An object younger than this means that the backup is being written
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = span)]
    pub settle: Duration,
    /// Read with so many threads [default: the number of cores; more for a far server]
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// Hold at most so much of the data in memory
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = size)]
    pub memory: u64,
}

/// Evidence and checks for a decision.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct CheckArgs {
    /// Check the data of creating (and asked-for error) backups before deciding: quick, deep or restore
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub check: Option<Level>,
    /// Take what `check --format json` found on another host; repeatable
    #[arg(long, value_name = "FILE")]
    pub evidence: Vec<PathBuf>,
    /// Take only evidence that is signed with the private key of this public key (Ed25519 in PEM)
    #[arg(long, value_name = "FILE", requires = "evidence")]
    pub verify_key: Option<PathBuf>,
    /// Let a creating backup become available on a quick check, which reads none of its data
    #[arg(long)]
    pub accept_quick: bool,
    /// Do not believe a check that is older
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
    pub evidence_max_age: Duration,
    /// How.
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl PlaceArgs {
    /// What has to be typed after a command so that it looks at the same storage, with a blank before it. An option's value may be a
    /// secret, so that only the name of one is repeated that did not come out of a file.
    pub fn same(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.storage_path.iter().map(|path| format!(" --storage-path {}", shell_word(path.display()))));
        words.extend(self.storage_option.iter().map(|option| match option.split_once('=') {
            Some((name, value)) if !value.starts_with('@') => format!(" --storage-option {}", shell_word(format!("{name}=…"))),
            _ => format!(" --storage-option {}", shell_word(option)),
        }));
        words.extend(self.gcs_endpoint.iter().map(|url| format!(" --gcs-endpoint {}", shell_word(url))));
        words.extend(self.storage_timeout.iter().map(|span| format!(" --storage-timeout {}s", span.as_secs())));
        words.concat()
    }

    /// How long to wait for a storage that gives nothing useful.
    pub fn wait_limit(&self) -> WaitLimit {
        self.storage_timeout.map_or_else(WaitLimit::default, WaitLimit::of)
    }
}

impl StorageArgs {
    /// What is asked of every backup.
    pub fn request(&self, level: Level, share: Share) -> Request {
        let usual = ReadOptions::default();
        let options = ReadOptions { jobs: self.jobs.unwrap_or(usual.jobs), memory: self.memory, share, digest: usual.digest };
        Request { level, options, settle: self.settle }
    }
}

impl CheckArgs {
    /// Sets how long evidence is valid and whether a quick check is enough.
    pub fn tell(&self, policy: &mut Policy) {
        policy.accept_quick = self.accept_quick;
        policy.evidence_max_age_seconds = i64::try_from(self.evidence_max_age.as_secs()).unwrap_or(i64::MAX);
    }
}

/// Reads a level.
pub fn level(text: &str) -> std::result::Result<Level, String> {
    match text {
        "quick" => Ok(Level::Quick),
        "deep" => Ok(Level::Deep),
        "restore" => Ok(Level::Restore),
        _ => Err(format!("{text:?} is none of quick, deep, restore")),
    }
}

fn wait_limit(text: &str) -> std::result::Result<Duration, String> {
    span(text).and_then(|span| if span.is_zero() { Err("takes at least one second".to_owned()) } else { Ok(span) })
}

fn jobs(text: &str) -> std::result::Result<usize, String> {
    match whole_number(text)? {
        number @ 1..=1_024 => Ok(number),
        _ => Err("takes a number from 1 to 1024".to_owned()),
    }
}

/// Reads a size: a number of bytes, or with K, M, G or T (times 1024).
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let usage = || format!("{text:?} is no size; write for example 512M or 2G");
    let trimmed = text.trim().trim_end_matches(['B', 'b']).trim_end_matches(['i', 'I']);
    let (digits, unit) = match trimmed.char_indices().next_back() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (trimmed.get(..at).unwrap_or_default(), Some(letter.to_ascii_uppercase())),
        _ => (trimmed, None),
    };
    let shift = match unit {
        None => 0,
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some(_) => return Err(usage()),
    };
    let number: u64 = digits.parse().map_err(|_| usage())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(usage)?;
    if bytes < 16 << 20 { Err(format!("{text} is too little to read anything with; give at least 16M")) } else { Ok(bytes) }
}

/// Driver, container, and where containers belong to projects, the project.
type Place = (Driver, String, Option<String>);

/// The stores of this configuration; each is opened once.
pub struct Stores {
    options: StorageOptions,
    storage_path: Option<PathBuf>,
    gcs_endpoint: Option<String>,
    policy: RetryPolicy,
    wait_limit: WaitLimit,
    cancelled: Arc<AtomicBool>,
    open: Mutex<HashMap<Place, Arc<dyn ObjectStore>>>,
    health: Mutex<HashMap<Driver, Arc<Health>>>,
    directories: Mutex<HashMap<PathBuf, posix::Root>>,
    network: Network,
    swift: OnceLock<std::result::Result<Arc<swift::Client>, StorageError>>,
    s3: OnceLock<std::result::Result<Arc<s3::Client>, StorageError>>,
    gcs: OnceLock<std::result::Result<Arc<gcs::Client>, StorageError>>,
    ceph: OnceLock<std::result::Result<Cluster, StorageError>>,
    ceph_source_pool: Option<String>,
}

impl Stores {
    /// From flags and cinder.conf; nothing is reached yet.
    pub fn new(context: &Context<'_>, args: &PlaceArgs, cancelled: Arc<AtomicBool>) -> Result<Self> {
        let cinder = context.cinder_conf()?;
        let options = StorageOptions::new(cinder, &args.storage_option).map_err(|error| Error {
            exit: Exit::Usage,
            error: error.into(),
            hint: None,
        })?;
        Ok(Self {
            options,
            storage_path: args.storage_path.clone(),
            gcs_endpoint: args.gcs_endpoint.clone(),
            policy: RetryPolicy::default(),
            wait_limit: args.wait_limit(),
            cancelled,
            open: Mutex::default(),
            health: Mutex::default(),
            directories: Mutex::default(),
            network: Network::of(context.environment).map_err(|error| Error::usage(error.to_string()))?,
            swift: OnceLock::new(),
            s3: OnceLock::new(),
            gcs: OnceLock::new(),
            ceph: OnceLock::new(),
            ceph_source_pool: None,
        })
    }

    /// With the pool that the volumes are in.
    pub fn with_source_pool(self, pool: Option<String>) -> Self {
        Self { ceph_source_pool: pool, ..self }
    }

    /// With another limit on waiting for the storage.
    pub fn with_policy(self, policy: RetryPolicy) -> Self {
        Self { policy, ..self }
    }

    /// What works and should be known all the same, such as certificates that are not verified.
    pub fn warnings(&self) -> Vec<String> {
        let swift = self.swift.get().and_then(|made| made.as_ref().ok()).map_or(&[][..], |account| account.warnings());
        let s3 = self.s3.get().and_then(|made| made.as_ref().ok()).map_or(&[][..], |client| client.warnings());
        let gcs = self.gcs.get().and_then(|made| made.as_ref().ok()).map_or(&[][..], |client| client.warnings());
        swift.iter().chain(s3).chain(gcs).cloned().collect()
    }

    /// A directory of containers, opened when first asked for.
    fn directory(&self, path: PathBuf) -> std::result::Result<posix::Root, StorageError> {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = directories.get(&path) {
            return Ok(root.clone());
        }
        let root = posix::Root::open(&path)?;
        directories.insert(path, root.clone());
        Ok(root)
    }

    fn cluster(&self) -> std::result::Result<&Cluster, StorageError> {
        let cluster = self.ceph.get_or_init(|| {
            Ok(Cluster::new(&self.options)?.with_cancelled(Arc::clone(&self.cancelled)).with_health(self.health(Driver::Ceph)))
        });
        cluster.as_ref().map_err(Clone::clone)
    }

    /// The health of a driver's server or mount.
    fn health(&self, driver: Driver) -> Arc<Health> {
        let mut all = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(driver).or_insert_with(|| Arc::new(Health::new(self.wait_limit))))
    }

    /// How a driver's server is reached.
    fn network(&self, driver: Driver) -> Network {
        Network { health: self.health(driver), ..self.network.clone() }
    }

    /// Adds retries. All stores of a driver are on one server or below one mount. A mount works for all stores or for none; on
    /// a server a single container may fail.
    fn retrying<S: ObjectStore + 'static>(&self, driver: Driver, store: S) -> Arc<dyn ObjectStore> {
        let all = self.health(driver);
        let health = if is_directory(driver) { all } else { Arc::new(Health::of_container(all)) };
        Arc::new(RetryingStore::new(store, self.policy, Arc::clone(&self.cancelled)).with_health(health))
    }
}

/// Whether a driver keeps its containers as directories below one mount.
fn is_directory(driver: Driver) -> bool {
    matches!(driver, Driver::Posix | Driver::Nfs | Driver::GlusterFs)
}

impl StorageAccess for Stores {
    fn store(&self, driver: Driver, backup: &Backup) -> std::result::Result<Arc<dyn ObjectStore>, StorageError> {
        let container = backup.container.clone().unwrap_or_default();
        // Only Swift keeps the containers of projects apart.
        let project = backup.project_id.clone().filter(|_| driver == Driver::Swift);
        let key = (driver, container.clone(), project);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = match driver {
            Driver::Posix | Driver::Nfs | Driver::GlusterFs => {
                let root = posix::root(&self.options, driver, self.storage_path.as_deref())?;
                self.retrying(driver, self.directory(root)?.container(&container)?)
            }
            Driver::Swift => {
                let account = self.swift.get_or_init(|| swift::Client::new(&self.options, &self.network(driver)));
                let account = account.as_ref().map_err(Clone::clone)?;
                self.retrying(driver, account.container(backup.project_id.as_deref(), &container)?)
            }
            Driver::S3 => {
                let client = self.s3.get_or_init(|| s3::Client::new(&self.options, &self.network(driver)));
                self.retrying(driver, client.as_ref().map_err(Clone::clone)?.bucket(&container)?)
            }
            Driver::Gcs => {
                let client = self.gcs.get_or_init(|| gcs::Client::new(&self.options, self.gcs_endpoint.as_deref(), &self.network(driver)));
                self.retrying(driver, client.as_ref().map_err(Clone::clone)?.bucket(&container)?)
            }
            Driver::Ceph => {
                let text = format!("the driver {} is not one of objects", driver.name());
                return Err(StorageError::new(StorageErrorKind::Configuration, text));
            }
        };
        // A posix backup has a directory of its own: what is not asked for again need not stay open.
        if !is_directory(driver) {
            open.insert(key, Arc::clone(&store));
        }
        Ok(store)
    }

    fn location(&self, driver: Driver, backup: &Backup) -> std::result::Result<String, StorageError> {
        if driver != Driver::Ceph {
            return Ok(self.store(driver, backup)?.location().to_owned());
        }
        let cluster = self.cluster()?;
        let container = backup.container.as_deref().filter(|pool| !pool.is_empty());
        Ok(cluster.location(container.unwrap_or(cluster.default_pool())))
    }

    fn ceph(&self, subject: &Subject<'_>, watch: &Watch) -> std::result::Result<(Assessment, String), StorageError> {
        let cluster = self.cluster()?;
        let source = self.ceph_source_pool.as_deref().map(|pool| cluster.pool(pool));
        let location = self.location(Driver::Ceph, subject.backup)?;
        Ok((ceph::check(cluster, source.as_ref(), subject, watch), location))
    }

    fn precheck_ceph(
        &self,
        backup: &Backup,
        ancestors: &[Arc<Backup>],
        then: Option<Listing>,
    ) -> std::result::Result<Glance, StorageError> {
        ceph::precheck(self.cluster()?, backup, ancestors, then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_repeated_without_a_secret() {
        let place = PlaceArgs {
            storage_path: Some("/mnt/it's".into()),
            storage_option: vec!["backup_s3_store_secret_key=hunter2".into(), "backup_s3_store_access_key=@/etc/key".into()],
            gcs_endpoint: None,
            storage_timeout: Some(Duration::from_secs(90)),
        };
        let wanted = " --storage-path \"/mnt/it's\" --storage-option 'backup_s3_store_secret_key=…' \
            --storage-option 'backup_s3_store_access_key=@/etc/key' --storage-timeout 90s";
        assert_eq!(place.same(), wanted);
        assert_eq!(PlaceArgs::default().same(), "");
    }
}
