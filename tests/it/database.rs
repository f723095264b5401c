//! A database with Cinder's schema for one test, which is dropped at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use cinder_backup_repair::db::Engine;
use mysql::prelude::Queryable;
use postgres::SimpleQueryMessage;

use crate::rows::{self, Row};
use crate::servers::mariadb::Plugin;
use crate::servers::{ADMIN, ADMIN_PASSWORD, Server, Transport, mariadb, postgresql, shared_dir};

/// The tables that [`Database::rows_by_id`] and [`Database::dump`] cover: those that a repair changes, and others.
pub const TABLES: [&str; 7] = ["backups", "volumes", "snapshots", "volume_attachment", "services", "quota_usages", "backup_metadata"];

/// A row's table and id.
pub type RowKey = (String, String);
/// A row's cells by column.
pub type Cells = BTreeMap<String, Option<String>>;

/// One cell that differs between two states of a database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The table.
    pub table: String,
    /// The row's id.
    pub id: String,
    /// The column.
    pub column: String,
    /// The old value; `None` if the row is new or the cell was NULL.
    pub from: Option<String>,
    /// The new value; `None` if the row is gone or the cell is NULL.
    pub to: Option<String>,
}

/// The harness's own connection, with all privileges.
enum Admin {
    Sqlite(rusqlite::Connection),
    Mysql(Box<mysql::Conn>),
    Postgresql(Box<postgres::Client>),
}

/// A database.
pub struct Database {
    engine: Engine,
    name: String,
    server: Option<&'static Server>,
    admin: Mutex<Option<Admin>>,
    columns: OnceLock<BTreeMap<String, Vec<Column>>>,
    keep: bool,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    boolean: bool,
}

impl Database {
    /// A database without tables. `server` is `None` only for SQLite.
    pub fn empty(engine: Engine, server: Option<&'static Server>) -> Self {
        let database = Self::named(engine, server, format!("cinder_{}", uuid::Uuid::new_v4().simple()), false);
        match engine {
            Engine::Sqlite => drop(rusqlite::Connection::open(database.path()).expect("a new file")),
            Engine::Mysql | Engine::Mariadb => {
                database.server_execute(&format!("CREATE DATABASE {} CHARACTER SET utf8mb3", database.name));
            }
            Engine::Postgresql => database.server_execute(&format!("CREATE DATABASE {}", database.name)),
        }
        database
    }

    /// A handle on an existing database. With `keep` it is not dropped with the handle.
    pub fn named(engine: Engine, server: Option<&'static Server>, name: String, keep: bool) -> Self {
        assert_eq!(engine == Engine::Sqlite, server.is_none(), "SQLite has no server, the others have one");
        Self { engine, name, server, admin: Mutex::new(None), columns: OnceLock::new(), keep }
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The database name on its server; SQLite: the file's name without directory and extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server; panics for SQLite.
    pub fn server(&self) -> &'static Server {
        self.server.expect("SQLite has no server")
    }

    /// The file; SQLite only.
    pub fn path(&self) -> PathBuf {
        assert_eq!(self.engine, Engine::Sqlite, "only SQLite's database is a file");
        shared_dir().join(format!("{}.sqlite", self.name))
    }

    /// The SQLAlchemy URL for the harness's own account through the socket, without TLS on every engine.
    pub fn url(&self) -> String {
        match self.server {
            None => format!("sqlite:///{}", self.path().display()),
            Some(server) => server.socket_url(ADMIN, ADMIN_PASSWORD, &self.name),
        }
    }

    /// The SQLAlchemy URL for the harness's own account over TCP.
    pub fn tcp_url(&self) -> String {
        self.server().url(ADMIN, ADMIN_PASSWORD, &self.name)
    }

    /// Runs statements, separated by semicolons; panics if one fails.
    pub fn execute(&self, sql: &str) {
        self.try_execute(sql).unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }

    /// Runs statements; the error is that of the server.
    pub fn try_execute(&self, sql: &str) -> Result<(), String> {
        self.with_admin(|admin| match admin {
            Admin::Sqlite(connection) => connection.execute_batch(sql).map_err(|error| error.to_string()),
            Admin::Mysql(connection) => {
                let mut results = connection.query_iter(sql).map_err(|error| error.to_string())?;
                // The error of a later statement appears only when its result is read.
                while let Some(mut result) = results.iter() {
                    for row in result.by_ref() {
                        row.map_err(|error| error.to_string())?;
                    }
                }
                Ok(())
            }
            Admin::Postgresql(client) => client.batch_execute(sql).map_err(|error| format!("{error:?}")),
        })
    }

    /// The rows of a query as the engine's text.
    pub fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.with_admin(|admin| match admin {
            Admin::Sqlite(connection) => sqlite_rows(connection, sql).map_err(|error| error.to_string()),
            Admin::Mysql(connection) => {
                let rows: Vec<mysql::Row> = connection.query(sql).map_err(|error| error.to_string())?;
                Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(mysql_text).collect()).collect())
            }
            Admin::Postgresql(client) => {
                let messages = client.simple_query(sql).map_err(|error| format!("{error:?}"))?;
                let rows = messages.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect()),
                    _ => None,
                });
                Ok(rows.collect())
            }
        })
        .unwrap_or_else(|error: String| panic!("{error}\nin: {sql}"))
    }

    /// The single value of a query.
    pub fn value(&self, sql: &str) -> Option<String> {
        let rows = self.query(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "not one value: {rows:?}\nin: {sql}");
        rows[0][0].clone()
    }

    /// One cell of a row, by its id.
    pub fn cell(&self, table: &str, id: &str, column: &str) -> Option<String> {
        let id = rows::quote(self.engine, id);
        self.value(&format!("SELECT {column} FROM {table} WHERE id = {id}"))
    }

    /// Inserts an available backup, changed by `set`; returns its id.
    pub fn backup(&self, set: impl FnOnce(Row) -> Row) -> String {
        self.insert_one(set(rows::backup()))
    }

    /// Inserts an available volume, changed by `set`; returns its id.
    pub fn volume(&self, set: impl FnOnce(Row) -> Row) -> String {
        self.insert_one(set(rows::volume()))
    }

    /// Inserts an available snapshot of a volume, changed by `set`; returns its id.
    pub fn snapshot(&self, volume: &str, set: impl FnOnce(Row) -> Row) -> String {
        self.insert_one(set(rows::snapshot(volume)))
    }

    /// Inserts an attachment of a volume to a server, changed by `set`. Without that table (Juno), the volume's row has the attachment.
    pub fn attachment(&self, volume: &str, set: impl FnOnce(Row) -> Row) -> String {
        let row = set(rows::attachment(volume));
        let id = row.get_id();
        self.insert(&[row]);
        id
    }

    /// Inserts a cinder-backup service that is up, changed by `set`.
    pub fn service(&self, host: &str, set: impl FnOnce(Row) -> Row) {
        self.insert(&[set(rows::service(host))]);
    }

    /// Inserts a project's use of a resource, changed by `set`.
    pub fn quota_usage(&self, resource: &str, in_use: i64, set: impl FnOnce(Row) -> Row) {
        self.insert(&[set(rows::quota_usage(resource, in_use))]);
    }

    fn insert_one(&self, row: Row) -> String {
        let id = row.get_id();
        self.insert(&[row]);
        id
    }

    /// Inserts rows in an order that fits the foreign keys, many with one statement.
    pub fn insert(&self, rows: &[Row]) {
        let order =
            |table: &str| ["services", "volumes", "snapshots", "volume_attachment", "backups"].iter().position(|known| *known == table);
        let mut groups: BTreeMap<(usize, &str, Vec<&str>), Vec<&Row>> = BTreeMap::new();
        for row in rows {
            let columns = row.cells.keys().copied().filter(|column| self.has_column(row.table, column)).collect();
            groups.entry((order(row.table).unwrap_or(usize::MAX), row.table, columns)).or_default().push(row);
        }
        for ((_, table, columns), rows) in groups {
            if !self.has_table(table) {
                assert_eq!(table, "volume_attachment", "no table {table} in this column set");
                self.attach_as_juno(&rows);
                continue;
            }
            // `binary` is a reserved word of MySQL.
            let names: Vec<String> = columns.iter().map(|column| self.identifier(column)).collect();
            for batch in rows.chunks(500) {
                let values: Vec<String> = batch
                    .iter()
                    .map(|row| {
                        let cells: Vec<String> = columns.iter().map(|column| row.cells[column].sql(self.engine)).collect();
                        format!("({})", cells.join(", "))
                    })
                    .collect();
                self.execute(&format!("INSERT INTO {table} ({}) VALUES {}", names.join(", "), values.join(", ")));
            }
        }
    }

    fn attach_as_juno(&self, rows: &[&Row]) {
        for row in rows {
            let cells: Vec<String> = ["instance_uuid", "attached_host", "mountpoint", "attach_time", "attach_status"]
                .iter()
                .filter_map(|column| Some(format!("{column} = {}", row.cells.get(column)?.sql(self.engine))))
                .collect();
            let volume = row.cells["volume_id"].sql(self.engine);
            self.execute(&format!("UPDATE volumes SET {} WHERE id = {volume}", cells.join(", ")));
        }
    }

    /// An identifier in the engine's quotes.
    pub fn identifier(&self, name: &str) -> String {
        match self.engine {
            Engine::Mysql | Engine::Mariadb => format!("`{name}`"),
            Engine::Sqlite | Engine::Postgresql => format!("\"{name}\""),
        }
    }

    /// Whether the column set has a table.
    pub fn has_table(&self, table: &str) -> bool {
        self.columns().contains_key(table)
    }

    /// Whether the column set has a column.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.columns().get(table).is_some_and(|columns| columns.iter().any(|known| known.name == column))
    }

    /// The tables' names.
    pub fn tables(&self) -> BTreeSet<String> {
        self.columns().keys().cloned().collect()
    }

    fn columns(&self) -> &BTreeMap<String, Vec<Column>> {
        self.columns.get_or_init(|| {
            let sql = match self.engine {
                Engine::Sqlite => "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'",
                Engine::Mysql | Engine::Mariadb => {
                    "SELECT table_name, column_name, data_type FROM information_schema.columns \
                     WHERE table_schema = DATABASE() ORDER BY ordinal_position"
                }
                Engine::Postgresql => {
                    "SELECT table_name, column_name, data_type FROM information_schema.columns \
                     WHERE table_schema = 'public' ORDER BY ordinal_position"
                }
            };
            let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
            for row in self.query(sql) {
                let [Some(table), Some(name), Some(kind)] = row.as_slice() else {
                    panic!("a column without a name: {row:?}");
                };
                let column = Column { name: name.clone(), boolean: kind == "boolean" };
                tables.entry(table.clone()).or_default().push(column);
            }
            tables
        })
    }

    /// Reads the columns again at the next use, after a test changed the schema.
    pub fn forget_columns(&mut self) {
        self.columns = OnceLock::new();
    }

    /// Every row of [`TABLES`], booleans as 0 and 1, times as the engine's text.
    pub fn rows_by_id(&self) -> BTreeMap<RowKey, Cells> {
        self.rows_of(&TABLES)
    }

    /// Every row of these tables.
    pub fn rows_of(&self, tables: &[&str]) -> BTreeMap<RowKey, Cells> {
        let mut all = BTreeMap::new();
        for table in tables.iter().filter(|table| self.has_table(table)) {
            let columns = &self.columns()[*table];
            let shown: Vec<String> = columns
                .iter()
                .map(|column| {
                    let name = self.identifier(&column.name);
                    // SQLite declares BOOLEAN and stores 0 and 1; it has no cast between them.
                    if column.boolean && self.engine == Engine::Postgresql { format!("{name}::int") } else { name }
                })
                .collect();
            let id = columns.iter().position(|column| column.name == "id").expect("every table has an id");
            for row in self.query(&format!("SELECT {} FROM {table}", shown.join(", "))) {
                let key = ((*table).to_owned(), row[id].clone().expect("an id is never NULL"));
                let cells = columns.iter().map(|column| column.name.clone()).zip(row).collect();
                all.insert(key, cells);
            }
        }
        all
    }

    /// Like [`Database::rows_by_id`], as text in a fixed order without NULL cells.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for ((table, id), cells) in self.rows_by_id() {
            text.push_str(&format!("{table} {id}\n"));
            for (column, value) in cells {
                if let Some(value) = value {
                    text.push_str(&format!("    {column} = {value:?}\n"));
                }
            }
        }
        text
    }

    /// A copy with the same tables and rows on the same server. PostgreSQL refuses while others are connected to the database.
    pub fn copy(&self) -> Self {
        self.copy_to(format!("cinder_{}", uuid::Uuid::new_v4().simple()), false)
    }

    /// A copy with a given name, which stays until the server ends.
    pub fn copy_as(&self, name: String) -> Self {
        self.copy_to(name, true)
    }

    fn copy_to(&self, name: String, keep: bool) -> Self {
        let copy = Self::named(self.engine, self.server, name, keep);
        match self.engine {
            Engine::Sqlite => {
                let target = rows::quote(self.engine, &copy.path().display().to_string());
                self.execute(&format!("VACUUM INTO {target}"));
            }
            Engine::Postgresql => {
                self.disconnect();
                self.server_execute(&format!("CREATE DATABASE {} TEMPLATE {}", copy.name, self.name));
            }
            Engine::Mysql | Engine::Mariadb => {
                self.server_execute(&format!("CREATE DATABASE {} CHARACTER SET utf8mb3", copy.name));
                // Strict mode would refuse some dates.
                let mut script = String::from("SET sql_mode = 'NO_ENGINE_SUBSTITUTION';\nSET FOREIGN_KEY_CHECKS = 0;\n");
                for table in self.tables() {
                    let created = self.query(&format!("SHOW CREATE TABLE `{table}`"))[0][1].clone().expect("a statement");
                    script.push_str(&format!("{created};\nINSERT INTO `{table}` SELECT * FROM {}.`{table}`;\n", self.name));
                }
                script.push_str("SET FOREIGN_KEY_CHECKS = 1;\nSET sql_mode = DEFAULT");
                copy.execute(&script);
            }
        }
        copy
    }

    /// Closes the harness's own connection; the next use opens a new one.
    pub fn disconnect(&self) {
        *self.admin.lock().unwrap() = None;
    }

    /// Creates an account with grants: statements in which `{user}` is the account in the engine's form and `{database}` the database.
    /// Returns its URL over TCP.
    pub fn account(&self, grants: &str) -> String {
        self.account_with(grants, Plugin::Default, Transport::Any).url
    }

    /// Like [`Database::account`], for an account with a certain plugin and transport.
    pub fn account_with(&self, grants: &str, plugin: Plugin, transport: Transport) -> Account {
        let server = self.server();
        let user = match plugin {
            Plugin::UnixSocket => mariadb::user_name(),
            _ => format!("u_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]),
        };
        let password = format!("{}/@:%", uuid::Uuid::new_v4().simple());
        let quoted = match self.engine {
            Engine::Postgresql => {
                postgresql::create_user(server, &user, &password, transport);
                user.clone()
            }
            _ => {
                mariadb::create_user(server, &user, &password, plugin, transport);
                format!("'{user}'@'%'")
            }
        };
        let grants = grants.replace("{user}", &quoted).replace("{database}", &self.name);
        if !grants.trim().is_empty() {
            self.execute(&grants);
        }
        Account {
            url: server.url(&user, &password, &self.name),
            socket_url: server.socket_url(&user, &password, &self.name),
            user,
            password,
        }
    }

    fn with_admin<T>(&self, use_it: impl FnOnce(&mut Admin) -> Result<T, String>) -> Result<T, String> {
        let mut admin = self.admin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if admin.is_none() {
            *admin = Some(self.connect());
        }
        let result = use_it(admin.as_mut().expect("just connected"));
        if result.is_err() {
            // A connection may be unusable after an error; the next statement opens a new one.
            *admin = None;
        }
        result
    }

    fn connect(&self) -> Admin {
        match self.server {
            None => {
                let connection = rusqlite::Connection::open(self.path()).expect("the database's file");
                connection.busy_timeout(std::time::Duration::from_secs(20)).expect("a time-out");
                // The harness's own writes do not have to survive a power cut.
                connection.pragma_update(None, "synchronous", "OFF").expect("a pragma of SQLite's");
                Admin::Sqlite(connection)
            }
            Some(server) => server_admin(server, &self.name),
        }
    }

    /// Runs a statement on the server, outside any database.
    fn server_execute(&self, sql: &str) {
        let server = self.server();
        let outside = match self.engine {
            Engine::Postgresql => "postgres",
            _ => "mysql",
        };
        let result = match server_admin(server, outside) {
            Admin::Mysql(mut connection) => connection.query_drop(sql).map_err(|error| error.to_string()),
            Admin::Postgresql(mut client) => client.batch_execute(sql).map_err(|error| format!("{error:?}")),
            Admin::Sqlite(_) => unreachable!("SQLite has no server"),
        };
        result.unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.disconnect();
        if self.keep {
            return;
        }
        match self.engine {
            Engine::Sqlite => {
                let path = self.path();
                for ending in ["", "-wal", "-shm", "-journal"] {
                    let mut file = path.clone().into_os_string();
                    file.push(ending);
                    let _ = fs::remove_file(file);
                }
            }
            // A killed server has no databases to drop.
            _ if !self.server().process.is_running() => {}
            _ if std::thread::panicking() => {}
            Engine::Postgresql => self.server_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)),
            Engine::Mysql | Engine::Mariadb => self.server_execute(&format!("DROP DATABASE {}", self.name)),
        }
    }
}

/// An account that a test created.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its URL over TCP.
    pub url: String,
    /// Its URL through the socket.
    pub socket_url: String,
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

fn server_admin(server: &Server, database: &str) -> Admin {
    let begun = std::time::Instant::now();
    loop {
        match server.engine {
            Engine::Postgresql => {
                let client = postgresql::connect(&server.socket, server.port, "postgres", None, database);
                if let Some(client) = client {
                    return Admin::Postgresql(Box::new(client));
                }
            }
            _ => {
                if let Some(mut connection) = mariadb::connect(&server.socket, ADMIN, Some(ADMIN_PASSWORD))
                    && connection.select_db(database).is_ok()
                {
                    return Admin::Mysql(Box::new(connection));
                }
            }
        }
        // A server with many tests may have no free connection for a moment.
        assert!(begun.elapsed().as_secs() < 15, "cannot connect to {database}; the log ends:\n{}", server.process.log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn sqlite_rows(connection: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Vec<Vec<Option<String>>>> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(width);
        for index in 0..width {
            cells.push(match row.get_ref(index)? {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Real(number) => Some(number.to_string()),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            });
        }
        all.push(cells);
    }
    Ok(all)
}

fn mysql_text(value: mysql::Value) -> Option<String> {
    match value {
        mysql::Value::NULL => None,
        mysql::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => panic!("the text protocol returns text, not {other:?}"),
    }
}

/// What changed between two states of a database, in a fixed order.
pub fn changes(before: &BTreeMap<RowKey, Cells>, after: &BTreeMap<RowKey, Cells>) -> Vec<Change> {
    let nothing = Cells::new();
    let keys: BTreeSet<&RowKey> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for key in keys {
        let (old, new) = (before.get(key).unwrap_or(&nothing), after.get(key).unwrap_or(&nothing));
        let columns: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for column in columns {
            let (from, to) = (old.get(column).cloned().flatten(), new.get(column).cloned().flatten());
            if from != to {
                let (table, id) = key.clone();
                changes.push(Change { table, id, column: column.clone(), from, to });
            }
        }
    }
    changes
}

/// The directory of a checkout's templates and caches.
pub fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let cache = crate::servers::root().join(".cache");
        fs::create_dir_all(cache.join("schemas")).expect("the checkout is ours");
        cache
    })
}
