//! `doctor`: examines what a scan, a check and a repair depend on, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::orphans::BackEnd;
use super::{Database, Error, Obstacle, Result, StorageSettings, Stores};
use crate::audit::{AuditLog, runs};
use crate::config::{Host, ServerTarget, Target, TlsMode};
use crate::db::statements::{DURABILITY, TRIGGERS};
use crate::db::{Access, DbError, Engine};
use crate::domain::text::{count, shell_word};
use crate::domain::time::{human, seconds_between};
use crate::domain::{ColumnSet, Driver, Heartbeat, Table};
use crate::scan::{Lock, situation};
use crate::storage::{RetryPolicy, StorageError};

/// How far the clocks of this host and of the database may differ, in seconds.
const CLOCK_TOLERANCE: i64 = 5;
/// How many hosts, and how many containers of each driver, have a line of their own.
const LISTED: usize = 20;

/// What was found about one thing.
#[derive(Debug)]
pub enum Found {
    /// It is as it should be.
    Ok(String),
    /// It works, but not as it should; with what to do.
    Warning(String, String),
    /// A command would fail because of it.
    Failure(Error),
}

/// A line of the examination: what it is about, and what was found.
pub type Line = (&'static str, Found);

fn ok(topic: &'static str, text: impl Into<String>) -> Line {
    (topic, Found::Ok(text.into()))
}

fn warning(topic: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Line {
    (topic, Found::Warning(text.into(), advice.into()))
}

fn failure(topic: &'static str, error: impl Into<Error>) -> Line {
    (topic, Found::Failure(error.into()))
}

/// The line of a lookup, or of its error.
fn line(topic: &'static str, found: std::result::Result<Line, DbError>) -> Line {
    found.unwrap_or_else(|error| failure(topic, error))
}

/// Examines the database and the heartbeats in it. Each line is passed on as soon as it is known.
pub fn examine_database(database: &mut Database, each: &mut dyn FnMut(Line)) {
    each(server(database));
    each(encryption(database));
    each(line("clock", clock(database)));
    each(schema(database));
    reads(database).into_iter().for_each(&mut *each);
    privileges(database).into_iter().for_each(&mut *each);
    each(line("tables", tables(database)));
    each(line("triggers", triggers(database)));
    each(line("durability", durability(database)));
    services(database).unwrap_or_else(|error| vec![failure("cinder-backup", error)]).into_iter().for_each(each);
}

fn server(database: &Database) -> Line {
    let server = database.session.server();
    if server.read_only {
        return failure("server", Obstacle::ReadOnly(database.location.clone(), server.engine == Engine::Sqlite));
    }
    let user = server.user.as_ref().map(|user| format!(", as {user}")).unwrap_or_default();
    let cluster = server.cluster.as_ref().map(|cluster| format!("; {cluster}")).unwrap_or_default();
    ok("server", format!("{} {} accepts writes at {}{user}{cluster}", server.engine.name(), server.version, database.location))
}

fn encryption(database: &Database) -> Line {
    let Target::Server(target) = &database.target else { return ok("encryption", "not needed: the database is a file") };
    let is_local = |target: &ServerTarget| match &target.host {
        Host::Socket(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback()),
    };
    match (database.session.server().encrypted, target.tls.mode) {
        (true, TlsMode::VerifyCa | TlsMode::VerifyFull) => ok("encryption", "TLS, with a certificate that was verified"),
        (true, _) => {
            let advice = "use --tls-mode verify-full, and --tls-ca if a private authority signed the certificate";
            warning("encryption", "TLS, but the certificate is not verified, so another server could answer", advice)
        }
        (false, _) if is_local(target) => ok("encryption", "not needed: the server is on this host"),
        (false, _) => warning("encryption", "none: rows cross the network in plain text", "use --tls-mode verify-full"),
    }
}

fn clock(database: &mut Database) -> std::result::Result<Line, DbError> {
    let (theirs, uptime) = database.read(|reader| Ok((reader.clock()?, reader.uptime()?)))?;
    let ahead = seconds_between(theirs, Timestamp::now().to_zoned(TimeZone::UTC).datetime());
    if ahead.abs() > CLOCK_TOLERANCE {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let text = format!("this host's clock is {} {side} the database's", human(ahead.abs()));
        return Ok(warning("clock", text, "set both by NTP: the age of objects depends on this host's clock"));
    }
    if let Some(uptime) = uptime.filter(|uptime| *uptime < 2 * database.service_down_time) {
        let text = format!("the database server started {} ago, so a missing heartbeat proves nothing yet", human(uptime));
        return Ok(warning("clock", text, format!("wait {}", human(2 * database.service_down_time - uptime))));
    }
    Ok(ok("clock", "this host's clock and the database's agree"))
}

fn schema(database: &Database) -> Line {
    let schema = &database.schema;
    let optional = [
        ("volume_attachment", schema.has_attachments),
        ("quota_usages", schema.has_quotas),
        ("reservations", schema.has_reservations),
        ("backup_metadata", schema.has_backup_metadata),
        ("messages", schema.has_messages),
    ];
    let hidden: Vec<&str> = optional.iter().filter(|(_, exists)| !exists).map(|(table, _)| *table).collect();
    let release = format!("Cinder {}", schema.release);
    if hidden.is_empty() || schema.columns != ColumnSet::Mitaka {
        return ok("schema", release);
    }
    let text = format!("{release}, but this account sees no table {}", hidden.join(", "));
    warning("schema", text, "if the tables exist, let the account read them: see sql/grants")
}

/// Reads a row that does not exist from each table, so that a missing privilege shows.
fn reads(database: &mut Database) -> Vec<Line> {
    let mut failed = Vec::new();
    for table in [Table::Backups, Table::Volumes, Table::Snapshots] {
        failed.extend(database.read(|reader| reader.row(table, "", Lock::None)).err());
    }
    if database.schema.has_attachments {
        failed.extend(database.read(|reader| reader.attachments(&[String::new()])).err());
    }
    if failed.is_empty() {
        return vec![ok("privileges to read", "sufficient for scan and check")];
    }
    failed.into_iter().map(|error| failure("privileges to read", error)).collect()
}

fn privileges(database: &mut Database) -> Vec<Line> {
    let mut lines = Vec::new();
    for (options, what) in [
        ([false, false, false], "repair"),
        ([true, false, false], "repair --to deleted"),
        ([false, true, false], "repair --fix-quotas"),
        ([false, false, true], "repair --rehost"),
    ] {
        match database.find_missing_grants(options) {
            Err(error) => lines.push(failure("privileges to write", error)),
            Ok(grants) if grants.is_empty() => {}
            Ok(grants) => lines.push(warning("privileges to write", format!("not sufficient for {what}"), grants.join("; "))),
        }
    }
    if lines.is_empty() {
        lines.push(ok("privileges to write", "sufficient for every repair"));
    }
    lines
}

/// Begins a transaction that may write, which refuses tables without transactions, and ends it. Takes no lock on a server.
fn tables(database: &mut Database) -> std::result::Result<Line, DbError> {
    let server = database.session.server();
    if server.engine == Engine::Sqlite || server.read_only {
        return Ok(ok("tables", "not examined: this takes a transaction that may write"));
    }
    database.session.begin(Access::Write)?;
    database.session.rollback()?;
    Ok(ok("tables", "a change of several tables can be rolled back"))
}

fn triggers(database: &mut Database) -> std::result::Result<Line, DbError> {
    let rows = database.session.rows(&TRIGGERS, &[])?;
    let names: Vec<String> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(" on ")).collect();
    if names.is_empty() {
        return Ok(ok("triggers", "none that this account can see"));
    }
    let advice = "find out what each does: it runs in the transaction of a repair, and may belong to a schema change in progress";
    Ok(warning("triggers", names.join(", "), advice))
}

/// Whether a commit that the server has acknowledged survives a crash of its host. The audit log's outcomes depend on it.
fn durability(database: &mut Database) -> std::result::Result<Line, DbError> {
    let rows = database.session.rows(&DURABILITY, &[])?;
    let settings = rows.iter().filter_map(|row| Some((row.first()?.as_text()?, row.get(1)?.as_text()?)));
    let is_weak = |name: &str, value: &str| match name {
        "innodb_flush_log_at_trx_commit" => !matches!(value, "1" | "3"),
        "sync_binlog" => value != "1",
        "synchronous" => matches!(value, "0" | "1"),
        _ => value == "off",
    };
    let weak: Vec<String> =
        settings.filter(|(name, value)| is_weak(name, value)).map(|(name, value)| format!("{name} is {value}")).collect();
    if weak.is_empty() {
        return Ok(ok("durability", "a commit survives a crash of the server's host"));
    }
    let text =
        format!("{}: a crash of the server's host may undo the last repairs, although the audit log has them as applied", weak.join(", "));
    Ok(warning(
        "durability",
        text,
        "after such a crash run `cinder-backup-repair history reconcile`, which names the changes that were lost",
    ))
}

fn services(database: &mut Database) -> std::result::Result<Vec<Line>, DbError> {
    const TOPIC: &str = "cinder-backup";
    let (situation, thresholds) = (database.read(situation)?, database.thresholds());
    let (services, now) = (&situation.services, situation.now);
    let hosts: BTreeSet<&str> = services.hosts().collect();
    let mut lines: Vec<Line> = services
        .clocks_ahead(now, database.service_down_time)
        .into_iter()
        .map(|(host, ahead)| {
            let text = format!("the clock of {host} is {} ahead of the database's", human(ahead));
            warning(TOPIC, text, "set it by NTP: until then its heartbeats look recent for too long")
        })
        .collect();
    let (mut beating, mut silent) = (0, Vec::new());
    for host in &hosts {
        match services.heartbeat(host, now, services.down_time(host, &thresholds)) {
            Heartbeat::Up { .. } => beating += 1,
            Heartbeat::Down { silent: Some(seconds) } => silent.push(format!("{host} ({})", human(seconds))),
            Heartbeat::Down { silent: None } | Heartbeat::Missing => silent.push(format!("{host} (never)")),
            Heartbeat::Unreadable => silent.push(format!("{host} (unreadable)")),
        }
    }
    if hosts.is_empty() {
        lines.push(warning(TOPIC, "the table services has no host with it", "start it, or check whether this is the right database"));
    }
    if beating > 0 {
        lines.push(ok(TOPIC, format!("{} with recent heartbeats", count(beating, "host"))));
    }
    if !silent.is_empty() {
        let more = silent.len().saturating_sub(LISTED);
        silent.truncate(LISTED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let text = format!("no heartbeat from {}{more}", silent.join(", "));
        lines.push(warning(TOPIC, text, "their backups in progress count as stuck; start these services after the repair"));
    }
    Ok(lines)
}

/// Examines the audit log.
pub fn examine_log(path: &Path) -> Vec<Line> {
    const TOPIC: &str = "audit log";
    let shown = path.display();
    if let Err(error) = AuditLog::probe(path) {
        return vec![failure(TOPIC, Error::NoLog(error))];
    }
    if !path.exists() {
        return vec![ok(TOPIC, format!("{shown} does not exist yet and can be created"))];
    }
    let found = match runs(path) {
        Ok(found) => found,
        Err(error) => return vec![failure(TOPIC, error)],
    };
    if let Some(damage) = found.damage {
        let advice = "`history verify` names all problems; continue in a new log with --audit-log";
        return vec![warning(TOPIC, damage.to_string(), advice)];
    }
    let open: Vec<&str> = found.runs.iter().filter(|run| !run.open.is_empty()).map(|run| run.run.as_str()).collect();
    if open.is_empty() {
        return vec![ok(TOPIC, format!("{shown} is whole, with {}", count(found.runs.len(), "run")))];
    }
    let text = format!("the outcome of {} is not known: {}", count(open.len(), "run"), open.join(", "));
    vec![warning(TOPIC, text, format!("run `cinder-backup-repair history reconcile --audit-log {}`", shell_word(shown)))]
}

/// Logs in to each storage that a live backup is on, and lists the beginning of it. Each line is passed on as soon as it is known.
pub fn examine_storage(database: &mut Database, settings: StorageSettings, each: &mut dyn FnMut(Line)) -> Result<()> {
    let mut back_ends: BTreeMap<Driver, BTreeSet<BackEnd>> = BTreeMap::new();
    database.read(|reader| {
        reader.stored_backups(&mut |row| {
            if let Some(back_end) = BackEnd::of(&row).filter(|_| !row.deleted) {
                back_ends.entry(back_end.driver).or_default().insert(back_end);
            }
        })
    })?;
    if let Some(back_end) = BackEnd::configured(&settings.options) {
        back_ends.entry(back_end.driver).or_default().insert(back_end);
    }
    // A person waits for the answer, and can ask again.
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let stores = Stores::new(settings, retry, std::sync::Arc::default());
    for (driver, back_ends) in &back_ends {
        back_ends.iter().take(LISTED).for_each(|back_end| each(storage(&stores, back_end)));
        if back_ends.len() > LISTED {
            each(ok("storage", format!("{driver}: {} more containers were not examined", back_ends.len() - LISTED)));
        }
    }
    if back_ends.is_empty() {
        let advice = "use --config-file with the cinder.conf of a cinder-backup";
        each(warning("storage", "no live backup names one, and cinder.conf sets no backup_driver", advice));
    }
    stores.warnings().into_iter().for_each(|text| each(warning("storage", text, "correct the option in cinder.conf")));
    Ok(())
}

fn storage(stores: &Stores, back_end: &BackEnd) -> Line {
    let begun = Instant::now();
    let listed = || -> std::result::Result<String, StorageError> {
        if back_end.driver == Driver::Ceph {
            let cluster = stores.cluster()?;
            let pool = back_end.container.as_deref().unwrap_or(cluster.default_pool());
            cluster.pool(pool).images(&mut |_| {})?;
            return Ok(cluster.location(pool));
        }
        let store = stores.whole(back_end.driver, back_end.container.as_deref(), back_end.project.as_deref())?;
        store.list("", &mut |_| ControlFlow::Break(()))?;
        Ok(store.location().to_owned())
    };
    match listed() {
        Ok(location) => ok("storage", format!("{} at {location} answered in {} ms", back_end.driver, begun.elapsed().as_millis())),
        Err(error) => {
            let hint = "correct its options in cinder.conf or with --storage-option; until then, a check on this host fails";
            failure("storage", Error::Incomplete(format!("{}: {}", back_end.driver, error.text), hint.to_owned()))
        }
    }
}
