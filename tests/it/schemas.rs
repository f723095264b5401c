//! Cinder's real schema for each engine, and the column sets of older releases derived from it.
//!
//! `cinder-manage db sync` of the pinned Cinder creates the schema once. The result is kept in `.cache/schemas` under a hash of the
//! requirements and the server's version. Each process loads it into a template for each column set, and a test's database is a copy of
//! the template.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use cinder_backup_repair::db::Engine;
use sha2::{Digest, Sha256};

use crate::cinder;
use crate::database::{Database, cache};
use crate::servers::{self, Server, new_dir, postgresql, run};

/// The engines that are available everywhere; [`engines`] adds Oracle's MySQL if it is installed.
pub const ENGINES: [Engine; 3] = [Engine::Sqlite, Engine::Mariadb, Engine::Postgresql];

/// The tables and columns of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Columns {
    /// 2026.2, as created by the real Cinder.
    Full,
    /// Mitaka (2016), the first with snapshot_id, data_timestamp and restore_volume_id.
    Mitaka,
    /// Liberty (2015), the first with temporary volumes, the counter and volumes.previous_status.
    Liberty,
    /// Juno (2014): no incremental backups, no volume_attachment; a volume's row has its attachment.
    Juno,
}

impl Columns {
    /// All of them, newest first.
    pub const ALL: [Self; 4] = [Self::Full, Self::Mitaka, Self::Liberty, Self::Juno];

    /// The number in `migrate_version` at the release's first tag; `None` if the release uses Alembic.
    pub fn migrate_version(self) -> Option<u32> {
        match self {
            Self::Full => None,
            Self::Mitaka => Some(72),
            Self::Liberty => Some(60),
            Self::Juno => Some(26),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Mitaka => "mitaka",
            Self::Liberty => "liberty",
            Self::Juno => "juno",
        }
    }
}

/// Columns of a table, or the table itself if none is named.
type Later = (&'static str, &'static [&'static str]);

/// Tables and columns, by the newest release in this module that does *not* have them yet; older releases do not have them either. From
/// the migrations in Cinder's repository.
const CAME_LATER: [(Columns, &[Later]); 3] = [
    (
        Columns::Mitaka,
        &[
            ("alembic_version", &[]),
            ("attachment_specs", &[]),
            ("backup_metadata", &[]),
            ("clusters", &[]),
            ("default_volume_types", &[]),
            ("group_snapshots", &[]),
            ("group_type_projects", &[]),
            ("group_type_specs", &[]),
            ("group_types", &[]),
            ("group_volume_type_mapping", &[]),
            ("groups", &[]),
            ("messages", &[]),
            ("workers", &[]),
            ("backups", &["encryption_key_id"]),
            ("volumes", &["cluster_name", "group_id", "service_uuid", "shared_targets", "use_quota"]),
            ("snapshots", &["group_snapshot_id", "use_quota"]),
            ("volume_attachment", &["connection_info", "connector"]),
            ("services", &["cluster_name", "uuid"]),
            ("quota_usages", &["race_preventer"]),
        ],
    ),
    (
        Columns::Liberty,
        &[
            ("backups", &["snapshot_id", "data_timestamp", "restore_volume_id"]),
            ("services", &["replication_status", "frozen", "active_backend_id"]),
        ],
    ),
    (
        Columns::Juno,
        &[
            ("driver_initiator_data", &[]),
            ("image_volume_cache_entries", &[]),
            ("volume_attachment", &[]),
            ("volume_type_projects", &[]),
            ("backups", &["parent_id", "temp_volume_id", "temp_snapshot_id", "num_dependent_backups"]),
            ("volumes", &["previous_status", "multiattach", "provider_id"]),
            ("snapshots", &["provider_id", "provider_auth"]),
            ("services", &["modified_at", "rpc_current_version", "object_current_version"]),
        ],
    ),
];

/// Every engine that the tests can use here: three, and Oracle's MySQL if it is installed. `tests/run --fast` uses only SQLite.
pub fn engines() -> Vec<Engine> {
    if servers::is_fast_run() {
        return vec![Engine::Sqlite];
    }
    let mut engines = ENGINES.to_vec();
    if servers::mysql().is_some() {
        engines.push(Engine::Mysql);
    }
    engines
}

/// A new database with the tables of a release and only the rows of a new Cinder.
pub fn fresh(engine: Engine, columns: Columns) -> Database {
    let server = servers::server(engine);
    assert_eq!(engine == Engine::Sqlite, server.is_none(), "{} is not installed", engine.name());
    let database = template(engine, server, columns).copy();
    if server.is_some() {
        wait_for_age(engine);
    }
    database
}

/// Like [`fresh`], on a given server.
pub fn on_server(server: &'static Server) -> Database {
    let database = Database::empty(server.engine, Some(server));
    database.execute(&real_schema(server.engine, Some(server)));
    // The script changes the settings of its connection.
    database.disconnect();
    database
}

/// Waits until five seconds after the first use of an engine's shared server: a missing heartbeat proves nothing while the database
/// server is younger than twice `service_down_time`, which is 2 s or more in the tests.
fn wait_for_age(engine: Engine) {
    static FIRST: OnceLock<Mutex<BTreeMap<&'static str, Instant>>> = OnceLock::new();
    let first = {
        let mut first = FIRST.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *first.entry(engine.name()).or_insert_with(Instant::now)
    };
    std::thread::sleep(Duration::from_secs(5).saturating_sub(first.elapsed()));
}

/// The template on this process's server, created at the first use.
fn template(engine: Engine, server: Option<&'static Server>, columns: Columns) -> Database {
    static MADE: OnceLock<Mutex<BTreeMap<(&'static str, Columns), ()>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    make_template(&mut made, engine, server, columns)
}

fn make_template(
    made: &mut BTreeMap<(&'static str, Columns), ()>,
    engine: Engine,
    server: Option<&'static Server>,
    columns: Columns,
) -> Database {
    let name = format!("template_{}", columns.name());
    let handle = |name: String| Database::named(engine, server, name, true);
    if made.contains_key(&(engine.name(), columns)) {
        return handle(name);
    }
    // Built under another name first, so that a failing test does not leave an incomplete template to others.
    let building = Database::empty(engine, server);
    if columns == Columns::Full {
        building.execute(&real_schema(engine, server));
    } else {
        let full = make_template(made, engine, server, Columns::Full);
        let mut older = full.copy();
        derive(&mut older, columns);
        return finish(made, older, name, columns);
    }
    finish(made, building, name, columns)
}

fn finish(made: &mut BTreeMap<(&'static str, Columns), ()>, built: Database, name: String, columns: Columns) -> Database {
    let template = built.copy_as(name);
    made.insert((template.engine().name(), columns), ());
    template
}

/// The schema that `cinder-manage db sync` creates on SQLite. It is committed, so tests on SQLite do not need Cinder.
pub const SQLITE_SCHEMA: &str = "tests/cinder/schema-sqlite.sql";

/// The SQL that creates the real schema, from the checkout or the cache, or else from `cinder-manage db sync`.
fn real_schema(engine: Engine, server: Option<&'static Server>) -> String {
    if engine == Engine::Sqlite {
        return fs::read_to_string(servers::root().join(SQLITE_SCHEMA)).expect(SQLITE_SCHEMA);
    }
    let mut hash = Sha256::new();
    hash.update(fs::read(servers::root().join("tests/requirements.txt")).expect("tests/requirements.txt"));
    let database = Database::empty(engine, server);
    hash.update(database.value("SELECT VERSION()").expect("a server has a version"));
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let path = cache().join("schemas").join(format!("{}-{hash}.sql", engine.name()));
    // Several test processes may need it at once; one creates it.
    let lock = File::create(cache().join("schemas/lock")).expect("the checkout is ours");
    lock.lock().expect("a lock on a file of ours");
    if let Ok(sql) = fs::read_to_string(&path) {
        return sql;
    }
    let sql = synced_schema(&database);
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, &sql).expect("the cache is ours");
    fs::rename(&unfinished, &path).expect("the cache is ours");
    sql
}

/// The SQL of what `cinder-manage db sync` makes in an empty database.
pub fn synced_schema(empty: &Database) -> String {
    cinder::sync(&empty.url());
    let sql = script(empty);
    assert!(sql.contains("num_dependent_backups"), "cinder-manage made a schema without backups");
    sql
}

/// A database's tables and rows as SQL.
fn script(database: &Database) -> String {
    match database.engine() {
        Engine::Sqlite => sqlite_script(database),
        Engine::Mysql | Engine::Mariadb => mysql_script(database),
        Engine::Postgresql => postgresql_script(database),
    }
}

fn sqlite_script(database: &Database) -> String {
    let mut script = String::from("PRAGMA foreign_keys = OFF;\n");
    for row in database.query("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name") {
        script.push_str(row[0].as_ref().expect("not NULL"));
        script.push_str(";\n");
    }
    inserts(database, &mut script);
    script.push_str("PRAGMA foreign_keys = ON;\n");
    script
}

fn mysql_script(database: &Database) -> String {
    let mut script = String::from("SET FOREIGN_KEY_CHECKS = 0;\n");
    for table in database.tables() {
        script.push_str(database.query(&format!("SHOW CREATE TABLE `{table}`"))[0][1].as_ref().expect("a statement"));
        script.push_str(";\n");
    }
    inserts(database, &mut script);
    script.push_str("SET FOREIGN_KEY_CHECKS = 1;\n");
    script
}

fn inserts(database: &Database, script: &mut String) {
    for table in database.tables() {
        let name = database.identifier(&table);
        for row in database.query(&format!("SELECT * FROM {name}")) {
            let cells: Vec<String> = row
                .iter()
                .map(|cell| cell.as_ref().map_or("NULL".to_owned(), |text| crate::rows::quote(database.engine(), text)))
                .collect();
            script.push_str(&format!("INSERT INTO {name} VALUES ({});\n", cells.join(", ")));
        }
    }
}

fn postgresql_script(database: &Database) -> String {
    let dump = run(Command::new(postgresql::program("pg_dump"))
        .args(["--no-owner", "--no-privileges", "--inserts", "--username=postgres"])
        .arg(format!("--host={}", database.server().socket.display()))
        .arg(format!("--port={}", database.server().port))
        .arg(database.name()));
    // Newer versions of pg_dump add commands of psql against hostile dumps, which are not SQL.
    dump.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect()
}

/// Removes what a release did not have yet, and adds what it still had.
fn derive(database: &mut Database, columns: Columns) {
    let mut tables: Vec<&str> = Vec::new();
    let mut dropped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (release, later) in CAME_LATER.iter().filter(|(release, _)| *release <= columns) {
        debug_assert_ne!(*release, Columns::Full);
        for (table, columns) in *later {
            if columns.is_empty() {
                tables.push(table);
            } else {
                dropped.entry(table).or_default().extend(*columns);
            }
        }
    }
    dropped.retain(|table, _| !tables.contains(table));
    match database.engine() {
        Engine::Sqlite => derive_sqlite(database, &tables, &dropped),
        Engine::Mysql | Engine::Mariadb => derive_mysql(database, &tables, &dropped),
        Engine::Postgresql => derive_postgresql(database, &tables, &dropped),
    }
    if columns == Columns::Juno {
        let time = if database.engine() == Engine::Postgresql { "timestamp" } else { "datetime" };
        for column in ["instance_uuid varchar(36)", "attached_host varchar(255)", "mountpoint varchar(255)"] {
            database.execute(&format!("ALTER TABLE volumes ADD COLUMN {column}"));
        }
        database.execute(&format!("ALTER TABLE volumes ADD COLUMN attach_time {time}"));
    }
    let version = columns.migrate_version().expect("only the newest has Alembic's table");
    database.execute("CREATE TABLE migrate_version (repository_id varchar(250) NOT NULL PRIMARY KEY, repository_path text, version int)");
    database.execute(&format!(
        "INSERT INTO migrate_version VALUES ('cinder', '/usr/lib/python2.7/dist-packages/cinder/db/sqlalchemy/migrate_repo', \
         {version})"
    ));
    database.forget_columns();
}

/// The indexes since 2023.1.
const NEW_INDEXES: [(&str, &str); 4] = [
    ("backups", "backups_deleted_project_id_idx"),
    ("volumes", "volumes_deleted_project_id_idx"),
    ("volumes", "volumes_deleted_host_idx"),
    ("snapshots", "snapshots_deleted_project_id_idx"),
];

/// The indexes since Pike. MySQL always had them, because it has one for every foreign key.
const PIKE_INDEXES: [&str; 2] = ["ix_volume_attachment_volume_id", "ix_snapshots_volume_id"];

fn derive_postgresql(database: &Database, tables: &[&str], dropped: &BTreeMap<&str, Vec<&str>>) {
    for table in tables {
        database.execute(&format!("DROP TABLE {table} CASCADE"));
    }
    for (table, columns) in dropped {
        for column in columns {
            database.execute(&format!("ALTER TABLE {table} DROP COLUMN {column} CASCADE"));
        }
    }
    for (_, index) in NEW_INDEXES {
        database.execute(&format!("DROP INDEX {index}"));
    }
    for index in PIKE_INDEXES {
        // The index on volume_attachment was dropped with the table if the release has none.
        database.execute(&format!("DROP INDEX IF EXISTS {index}"));
    }
}

fn derive_mysql(database: &Database, tables: &[&str], dropped: &BTreeMap<&str, Vec<&str>>) {
    let keys = database.query(
        "SELECT table_name, constraint_name, column_name, referenced_table_name, referenced_column_name \
         FROM information_schema.key_column_usage \
         WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL",
    );
    let is_dropped = |table: &str, column: &str| dropped.get(table).is_some_and(|columns| columns.contains(&column));
    for key in keys {
        let [Some(table), Some(key), Some(column), Some(to_table), Some(to_column)] = key.as_slice() else {
            panic!("a foreign key without a name: {key:?}");
        };
        let goes = tables.contains(&table.as_str())
            || tables.contains(&to_table.as_str())
            || is_dropped(table, column)
            || is_dropped(to_table, to_column);
        if goes {
            database.execute(&format!("ALTER TABLE `{table}` DROP FOREIGN KEY `{key}`"));
        }
    }
    for table in tables {
        database.execute(&format!("DROP TABLE `{table}`"));
    }
    for (table, columns) in dropped {
        for column in columns {
            if *column == "race_preventer" {
                // Without the column, the unique index over three columns would cover two, which the column was added to avoid.
                let index = database.query(
                    "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = DATABASE() \
                     AND table_name = 'quota_usages' AND column_name = 'race_preventer'",
                );
                for row in index {
                    let name = row[0].as_ref().expect("an index has a name");
                    database.execute(&format!("ALTER TABLE quota_usages DROP INDEX `{name}`"));
                }
            }
            database.execute(&format!("ALTER TABLE `{table}` DROP COLUMN `{column}`"));
        }
    }
    for (table, index) in NEW_INDEXES {
        database.execute(&format!("ALTER TABLE `{table}` DROP INDEX `{index}`"));
    }
}

/// SQLite does not drop a column in a foreign key or an index, so the tables are created again without it.
fn derive_sqlite(database: &Database, tables: &[&str], dropped: &BTreeMap<&str, Vec<&str>>) {
    let mut script = String::from("PRAGMA foreign_keys = OFF;\n");
    for table in tables {
        script.push_str(&format!("DROP TABLE \"{table}\";\n"));
    }
    for (_, index) in NEW_INDEXES {
        script.push_str(&format!("DROP INDEX {index};\n"));
    }
    for (table, columns) in dropped {
        let created = database
            .value(&format!("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{table}'"))
            .expect("a table has a statement");
        let body = created.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).expect("a list of columns").0;
        let names_dropped = |line: &str| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| columns.contains(&word))
                || tables.iter().any(|gone| line.contains(&format!("REFERENCES {gone} ")))
        };
        let kept: Vec<&str> = body.split(",\n").flat_map(|part| part.split(", \n")).filter(|l| !names_dropped(l)).collect();
        script.push_str(&format!("DROP TABLE \"{table}\";\nCREATE TABLE \"{table}\" ({});\n", kept.join(",\n")));
        let indexes = database
            .query(&format!("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL"));
        for index in indexes {
            let [Some(name), Some(sql)] = index.as_slice() else {
                panic!("an index without a name: {index:?}");
            };
            let came_later = NEW_INDEXES.iter().any(|(_, new)| new == name) || PIKE_INDEXES.contains(&name.as_str());
            if !names_dropped(sql) && !came_later {
                script.push_str(&format!("{sql};\n"));
            }
        }
    }
    script.push_str("PRAGMA foreign_keys = ON;\n");
    database.execute(&script);
}

/// A directory for a test's own files, which is removed with the process.
pub fn scratch(name: &str) -> PathBuf {
    new_dir(servers::shared_dir(), name)
}
