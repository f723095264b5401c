//! The stores that backups are in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use crate::config::StorageOptions;
use crate::domain::{Backup, CheckResult, Driver, Listing, PrecheckListing};
use crate::parallel::lock;
use crate::storage::ceph::Cluster;
use crate::storage::{
    Health, Limits, Network, ObjectStore, RetryPolicy, RetryingStore, StorageError, StorageErrorKind, WaitLimit, gcs, posix, s3, swift,
};
use crate::verify::{StorageAccess, Subject, Watch, ceph};

/// Driver, container, and where containers belong to projects, the project.
type Place = (Driver, String, Option<String>);

/// Where backups are and how the storage is reached.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    pub options: StorageOptions,
    /// The directory of posix, nfs and glusterfs, if not the one in cinder.conf.
    pub path: Option<PathBuf>,
    /// The address of Google Cloud Storage, if not its public one.
    pub gcs_endpoint: Option<String>,
    /// The pool of the source volumes of Ceph backups.
    pub ceph_source_pool: Option<String>,
    /// Proxies and time limits.
    pub network: Network,
    /// How long to wait for a storage that gives nothing useful.
    pub wait_limit: WaitLimit,
    /// Bytes and requests a second, of all stores together, and requests at once to each storage.
    pub limits: Arc<Limits>,
}

/// The stores of this configuration; each is opened once.
pub struct Stores {
    settings: StorageSettings,
    retry: RetryPolicy,
    cancelled: Arc<AtomicBool>,
    open: Mutex<HashMap<Place, Arc<dyn ObjectStore>>>,
    health: Mutex<HashMap<Driver, Arc<Health>>>,
    limits: Mutex<HashMap<Driver, Arc<Limits>>>,
    directories: Mutex<HashMap<PathBuf, posix::Root>>,
    swift: OnceLock<Result<Arc<swift::Client>, StorageError>>,
    s3: OnceLock<Result<Arc<s3::Client>, StorageError>>,
    gcs: OnceLock<Result<Arc<gcs::Client>, StorageError>>,
    ceph: OnceLock<Result<Cluster, StorageError>>,
}

impl Stores {
    /// Connects to nothing yet. Setting `cancelled` ends all waiting.
    pub fn new(settings: StorageSettings, retry: RetryPolicy, cancelled: Arc<AtomicBool>) -> Self {
        Self {
            settings,
            retry,
            cancelled,
            open: Mutex::default(),
            health: Mutex::default(),
            limits: Mutex::default(),
            directories: Mutex::default(),
            swift: OnceLock::new(),
            s3: OnceLock::new(),
            gcs: OnceLock::new(),
            ceph: OnceLock::new(),
        }
    }

    /// Warnings of the stores that are open, for example that certificates are not verified.
    pub fn warnings(&self) -> Vec<String> {
        let swift = self.swift.get().and_then(|made| made.as_ref().ok()).map_or(&[][..], |account| account.warnings());
        let s3 = self.s3.get().and_then(|made| made.as_ref().ok()).map_or(&[][..], |client| client.warnings());
        let gcs = self.gcs.get().and_then(|made| made.as_ref().ok()).map_or(&[][..], |client| client.warnings());
        swift.iter().chain(s3).chain(gcs).cloned().collect()
    }

    /// A directory of containers, opened when first asked for.
    fn directory(&self, path: PathBuf) -> Result<posix::Root, StorageError> {
        let mut directories = lock(&self.directories);
        if let Some(root) = directories.get(&path) {
            return Ok(root.clone());
        }
        let root = posix::Root::open(&path)?;
        directories.insert(path, root.clone());
        Ok(root)
    }

    /// The pool of the source volumes of Ceph backups, if it is named.
    pub fn source_pool(&self) -> Option<&str> {
        self.settings.ceph_source_pool.as_deref()
    }

    /// The Ceph cluster.
    pub fn cluster(&self) -> Result<&Cluster, StorageError> {
        let open = || {
            let (health, limits) = (self.health(Driver::Ceph), self.limits(Driver::Ceph));
            Cluster::new(&self.settings.options, Arc::clone(&self.cancelled), health, limits)
        };
        let cluster = self.ceph.get_or_init(open);
        cluster.as_ref().map_err(Clone::clone)
    }

    /// The health of a driver's server or mount.
    fn health(&self, driver: Driver) -> Arc<Health> {
        let mut all = lock(&self.health);
        Arc::clone(all.entry(driver).or_insert_with(|| Arc::new(Health::new(self.settings.wait_limit))))
    }

    /// The limits of a driver's server or mount.
    fn limits(&self, driver: Driver) -> Arc<Limits> {
        Arc::clone(lock(&self.limits).entry(driver).or_insert_with(|| Arc::new(self.settings.limits.for_storage())))
    }

    fn network(&self, driver: Driver) -> Network {
        Network { health: self.health(driver), ..self.settings.network.clone() }
    }

    /// Adds retries and limits. All stores of a driver are on one server or below one mount. A mount works for all stores or for none; on
    /// a server a single container may fail.
    fn retrying<S: ObjectStore + 'static>(&self, driver: Driver, store: S) -> Arc<dyn ObjectStore> {
        let all = self.health(driver);
        let health = if driver.is_directory() { all } else { Arc::new(Health::of_container(all)) };
        Arc::new(RetryingStore::new(store, self.retry, Arc::clone(&self.cancelled), health, self.limits(driver)))
    }

    /// The store with all backups of a container; of a driver with directories, of all containers.
    pub fn whole(&self, driver: Driver, container: Option<&str>, project: Option<&str>) -> Result<Arc<dyn ObjectStore>, StorageError> {
        if driver.is_directory() {
            let root = posix::root(&self.settings.options, driver, self.settings.path.as_deref())?;
            return Ok(self.retrying(driver, self.directory(root)?.tree()));
        }
        let [container, project_id] = [container, project].map(|text| text.map(str::to_owned));
        self.store(driver, &Backup { container, project_id, ..Backup::default() })
    }
}

impl StorageAccess for Stores {
    fn store(&self, driver: Driver, backup: &Backup) -> Result<Arc<dyn ObjectStore>, StorageError> {
        let container = backup.container.clone().unwrap_or_default();
        // Only Swift keeps the containers of projects apart.
        let project = backup.project_id.clone().filter(|_| driver == Driver::Swift);
        let key = (driver, container.clone(), project);
        let mut open = lock(&self.open);
        if let Some(store) = open.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = match driver {
            Driver::Posix | Driver::Nfs | Driver::GlusterFs => {
                let root = posix::root(&self.settings.options, driver, self.settings.path.as_deref())?;
                self.retrying(driver, self.directory(root)?.container(&container)?)
            }
            Driver::Swift => {
                let account = self.swift.get_or_init(|| swift::Client::new(&self.settings.options, &self.network(driver)));
                let account = account.as_ref().map_err(Clone::clone)?;
                self.retrying(driver, account.container(backup.project_id.as_deref(), &container)?)
            }
            Driver::S3 => {
                let client = self.s3.get_or_init(|| s3::Client::new(&self.settings.options, &self.network(driver)));
                self.retrying(driver, client.as_ref().map_err(Clone::clone)?.bucket(&container)?)
            }
            Driver::Gcs => {
                let client = self
                    .gcs
                    .get_or_init(|| gcs::Client::new(&self.settings.options, self.settings.gcs_endpoint.as_deref(), &self.network(driver)));
                self.retrying(driver, client.as_ref().map_err(Clone::clone)?.bucket(&container)?)
            }
            Driver::Ceph => {
                let text = format!("the driver {} has no object store", driver);
                return Err(StorageError::new(StorageErrorKind::Configuration, text));
            }
        };
        // A posix backup has a directory of its own: what is not asked for again need not stay open.
        if !driver.is_directory() {
            open.insert(key, Arc::clone(&store));
        }
        Ok(store)
    }

    fn location(&self, driver: Driver, backup: &Backup) -> Result<String, StorageError> {
        if driver != Driver::Ceph {
            return Ok(self.store(driver, backup)?.location().to_owned());
        }
        let cluster = self.cluster()?;
        let container = backup.container.as_deref().filter(|pool| !pool.is_empty());
        Ok(cluster.location(container.unwrap_or(cluster.default_pool())))
    }

    fn ceph(&self, subject: &Subject<'_>, watch: &Watch) -> Result<CheckResult, StorageError> {
        let cluster = self.cluster()?;
        let source = self.settings.ceph_source_pool.as_deref().map(|pool| cluster.pool(pool));
        let location = Some(self.location(Driver::Ceph, subject.backup)?);
        Ok(CheckResult { location, ..ceph::check(cluster, source.as_ref(), subject, watch) })
    }

    fn precheck_ceph(&self, backup: &Backup, ancestors: &[Arc<Backup>], then: Option<Listing>) -> Result<PrecheckListing, StorageError> {
        ceph::precheck(self.cluster()?, backup, ancestors, then)
    }
}
