//! The demo's folder: a Cinder database, a backup storage, a cinder.conf, and the files that the commands write.
//!
//! Besides `db`, only this module uses rusqlite, and only this module creates a database. Changes by others (a service with heartbeats, a
//! colleague) must not go through the program's own sessions.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::store;
use crate::cli::{Error, Exit, Result};
use crate::config::describe_file;

const SCHEMA: &str = include_str!("../../../../sql/demo/schema.sql");
const ROWS: &str = include_str!("../../../../sql/demo/rows.sql");
const HEARTBEAT: &str = include_str!("../../../../sql/demo/heartbeat.sql");
const STATE: &str = include_str!("../../../../sql/demo/state.sql");
const STORED: &str = include_str!("../../../../sql/demo/stored.sql");
/// A change that a colleague makes by hand between `plan` and `apply`.
pub const MEANWHILE: &str = include_str!("../../../../sql/demo/meanwhile.sql");

const DATABASE: &str = "cinder.sqlite";
pub const CONFIGURATION: &str = "cinder.conf";
pub const AUDIT_LOG: &str = "audit.jsonl";
pub const STORAGE: &str = "backup";

/// Every row that a repair may change, by table and id.
pub type State = BTreeMap<(String, String), Row>;

/// The columns of a row that a repair may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// All columns except `updated_at`, as one text.
    pub content: String,
    /// Set by each write.
    pub updated_at: Option<String>,
}

pub struct Stage {
    pub folder: PathBuf,
    /// Removes the folder when dropped; `None` for a folder that is kept.
    temporary: Option<TempDir>,
    connection: Connection,
}

impl Stage {
    /// Creates and fills the folder. A folder that is kept must be new or empty.
    pub fn build(keep: Option<&Path>) -> Result<Self> {
        let (folder, temporary) = match keep {
            Some(keep) => (kept_folder(keep)?, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("cinder-backup-repair-demo-").tempdir().map_err(|error| {
                    Error::new(Exit::Unexpected, format!("cannot make a temporary folder: {error}"))
                        .hint("set TMPDIR to a folder that can be written, or give --keep DIR")
                })?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let path = folder.join(DATABASE);
        let failed = |error| Error::new(Exit::Unexpected, format!("cannot make {}: {error}", path.display()));
        let connection = create(&path).map_err(failed)?;
        let stage = Self { folder, temporary, connection };
        let configuration = format!(
            "# The part of a controller's /etc/cinder/cinder.conf that matters here.\n\
             [DEFAULT]\nservice_down_time = 60\nreport_interval = 1\n\
             backup_driver = cinder.backup.drivers.posix.PosixBackupDriver\nbackup_posix_path = {}\n\
             backup_file_size = {}\nbackup_compression_algorithm = zstd\n\n[database]\nconnection = {}\n",
            option(&stage.file(STORAGE).display().to_string()),
            store::CHUNK,
            describe_file(&path)
        );
        let path = stage.file(CONFIGURATION);
        let cannot = |error| Error::new(Exit::Unexpected, format!("cannot write {}: {error}", path.display()));
        fs::write(&path, configuration).map_err(cannot)?;
        store::fill(&stage.file(STORAGE), &mut |id| stage.stored(id))?;
        Ok(stage)
    }

    pub fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a heartbeat of the working service, so that it does not count as silent on a slow machine.
    pub fn send_heartbeat(&self) -> Result<()> {
        self.execute(HEARTBEAT)
    }

    /// Changes rows as another program would.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(|error| self.failed(&error))
    }

    /// The current state.
    pub fn state(&self) -> Result<State> {
        let read = || -> rusqlite::Result<State> {
            let mut statement = self.connection.prepare_cached(STATE)?;
            let rows =
                statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), Row { content: row.get(2)?, updated_at: row.get(3)? })))?;
            rows.collect()
        };
        read().map_err(|error| self.failed(&error))
    }

    pub fn stored(&self, id: &str) -> Result<store::Row> {
        let row = self.connection.query_row(STORED, [id], |row| {
            Ok(store::Row {
                volume_id: row.get(0)?,
                parent_id: row.get(1)?,
                container: row.get(2)?,
                prefix: row.get(3)?,
                created_at: row.get(4)?,
                size: row.get(5)?,
            })
        });
        row.map_err(|error| self.failed(&error))
    }

    /// Closes the database and removes a temporary folder.
    pub fn close(self) -> io::Result<()> {
        drop(self.connection);
        self.temporary.map_or(Ok(()), TempDir::close)
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        Error::new(Exit::Unexpected, format!("the demo's own database {}: {error}", self.file(DATABASE).display()))
    }
}

fn kept_folder(keep: &Path) -> Result<PathBuf> {
    let shown = keep.display();
    match fs::read_dir(keep) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::usage(format!("--keep {shown}: the folder is not empty, and nothing is overwritten; give another")));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(keep);
            made.map_err(|error| Error::usage(format!("--keep {shown}: cannot make the folder: {error}")))?;
        }
        Err(error) => return Err(Error::usage(format!("--keep {shown}: {error}; give a folder that is empty or not there yet"))),
    }
    keep.canonicalize().map_err(|error| Error::usage(format!("--keep {shown}: {error}")))
}

/// A value as written in cinder.conf.
fn option(value: &str) -> String {
    value.replace('$', "$$")
}

fn create(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(ROWS)?;
    transaction.commit()?;
    Ok(connection)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::db::SessionSettings;
    use crate::domain::{Policy, Selection, Verdict};
    use crate::format::names::Prefix;

    fn scanned(stage: &Stage) -> crate::scan::Scan {
        let mut session = crate::db::sqlite::open(&stage.file(DATABASE), &SessionSettings::default()).unwrap();
        let schema = crate::db::schema::probe(session.as_mut()).unwrap();
        assert_eq!(schema.release, "2024.1 to 2026.2 (revision 9c74c1c6971f)");
        assert!(schema.has_attachments && schema.has_quotas);
        let (policy, selection, checks) = (Policy::default(), Selection::default(), crate::domain::Checks::new());
        let request = crate::scan::ScanRequest::new(&policy, &selection, crate::scan::KeptRows::None, &checks);
        crate::scan::scan(session.as_mut(), &schema, &request).unwrap()
    }

    #[test]
    fn the_scan_finds_every_stuck_row_of_the_demo_and_no_other() {
        let stage = Stage::build(None).unwrap();
        let scan = scanned(&stage);
        let findings: Vec<_> = scan.document.findings.iter().map(std::result::Result::unwrap).collect();
        let mut found: Vec<(&str, &str, Verdict)> = findings
            .iter()
            .map(|finding| (finding.name.as_deref().unwrap_or("-"), finding.evidence[0].code.as_str(), finding.verdict))
            .collect();
        found.sort_unstable_by_key(|(name, code, _)| (*name, *code));
        let (stuck, inconsistent) = (Verdict::Stuck, Verdict::Inconsistent);
        let expected = [
            ("\u{1b}]0;owned\u{7}\u{1b}[2Jmigration", "service-missing", stuck),
            ("-", "never-scheduled", stuck),
            ("=HYPERLINK(\"http://203.0.113.9/?\"&A1)", "service-down", stuck),
            ("build-cache", "no-active-backup", stuck),
            ("crm-db full", "counter-wrong", inconsistent),
            ("dns-zones nightly", "service-up", Verdict::Uncertain),
            ("erp-db nightly", "service-down", stuck),
            ("files-stage2 nightly", "service-up", Verdict::Uncertain),
            ("git full", "service-down", stuck),
            ("hr-db nightly", "temporary-leftover", inconsistent),
            ("ldap-data nightly", "recent", Verdict::Recent),
            ("ledger-db nightly", "service-down", stuck),
            ("mail-spool weekly", "service-down", stuck),
            ("portal-db increment 4", "parent-missing", inconsistent),
            ("portal-db weekly", "service-down", stuck),
            ("scratch before the test", "never-scheduled", stuck),
            ("wiki before the upgrade", "service-down", stuck),
        ];
        assert_eq!(found, expected);
        let notices: Vec<&str> = scan.document.notices.iter().map(|notice| notice.code.as_str()).collect();
        assert_eq!(notices, ["quota-wrong"]);
        assert_eq!(scan.census.live, 83);
    }

    #[test]
    fn the_rows_of_the_demo_are_consistent() {
        let stage = Stage::build(None).unwrap();
        let one = |sql: &str| stage.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(one("SELECT count(*) FROM pragma_foreign_key_check"), 0);
        assert_eq!(one("SELECT count(*) FROM backups WHERE deleted = 1"), 1_200);
        assert_eq!(one("SELECT count(*) FROM backups WHERE deleted = 1 AND (status <> 'deleted' OR deleted_at IS NULL)"), 0);
        let ids = "SELECT id FROM backups UNION ALL SELECT id FROM volumes UNION ALL SELECT id FROM snapshots UNION ALL SELECT id FROM volume_attachment";
        let odd =
            format!("SELECT count(*) FROM ({ids}) WHERE id NOT GLOB '????????-????-4???-[89ab]???-????????????' OR id GLOB '*[^0-9a-f-]*'");
        assert_eq!(one(&odd), 0);
        // The only format that SQLAlchemy reads.
        let times = "SELECT count(*) FROM backups WHERE created_at NOT GLOB '????-??-?? ??:??:??.??????' OR created_at > strftime('%Y-%m-%d %H:%M:%f', 'now')";
        assert_eq!(one(times), 0);
        assert_eq!(stage.state().unwrap().len(), 1_283 + 45 + 1);
    }

    #[test]
    fn objects_are_where_cinder_writes_them_and_as_old_as_their_rows() {
        let stage = Stage::build(None).unwrap();
        for (id, _) in store::earned() {
            let row = stage.stored(id).unwrap();
            assert_eq!(row.container, format!("{}/{}/{id}", &id[..2], &id[2..4]));
            let prefix = Prefix::parse(&row.prefix).unwrap();
            assert_eq!((prefix.volume_id, prefix.az, prefix.backup_id.as_str()), (row.volume_id, None, id));
            for entry in fs::read_dir(stage.file(STORAGE).join(&row.container)).unwrap() {
                let age = entry.unwrap().metadata().unwrap().modified().unwrap().elapsed().unwrap();
                assert!(age.as_secs() > 3 * 3_600, "{id} {age:?}");
            }
        }
    }

    #[test]
    fn a_temporary_folder_is_removed_and_a_kept_one_stays() {
        let stage = Stage::build(None).unwrap();
        let folder = stage.folder.clone();
        assert!(!stage.is_kept() && stage.file(CONFIGURATION).is_file());
        stage.close().unwrap();
        assert!(!folder.exists());

        let parent = tempfile::tempdir().unwrap();
        let keep = parent.path().join("new").join("demo");
        let stage = Stage::build(Some(&keep)).unwrap();
        assert!(stage.is_kept());
        stage.close().unwrap();
        assert!(keep.join(DATABASE).is_file());
        let error = Stage::build(Some(&keep)).err().unwrap();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.error.to_string().contains("not empty"), "{}", error.error);
        let error = Stage::build(Some(&keep.join(DATABASE))).err().unwrap();
        assert_eq!(error.exit, Exit::Usage);
        let stage = Stage::build(Some(&parent.path().join("odd % $ ? name"))).unwrap();
        let flags = crate::config::DatabaseFlags { config_files: vec![stage.file(CONFIGURATION)], ..Default::default() };
        let (cinder, _) = crate::config::cinder_conf(&flags, &crate::config::Environment::default()).unwrap();
        let options = crate::config::StorageOptions::new(cinder, &[]).unwrap();
        assert_eq!(Path::new(&options.text("backup_posix_path").unwrap().unwrap().value), stage.file(STORAGE));
    }

    #[test]
    fn a_folder_that_cannot_be_created_is_named_in_the_error() {
        let error = Stage::build(Some(Path::new("/proc/no/such"))).err().unwrap();
        assert!(error.error.to_string().contains("--keep /proc/no/such: "), "{}", error.error);
    }

    #[test]
    fn changes_by_other_writers_are_visible() {
        let stage = Stage::build(None).unwrap();
        let before = stage.state().unwrap();
        stage.send_heartbeat().unwrap();
        assert_eq!(stage.state().unwrap(), before);
        stage.execute(MEANWHILE).unwrap();
        let after = stage.state().unwrap();
        let moved: Vec<_> = after.iter().filter(|(key, row)| before[*key] != **row).collect();
        assert_eq!(moved.len(), 1);
        assert!(moved[0].1.content.contains("'error'"));
    }
}
