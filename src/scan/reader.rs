//! Reads Cinder's rows from a session: which statement fits the columns, and what its cells mean.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::db::schema::Schema;
use crate::db::statements as sql;
use crate::db::{Access, DbError, DbErrorKind, Engine, ID_BATCH, Param, PipelineStep, Session, Statement, StepResult};
use crate::domain::decide::{UserMessage, UserMetadata};
use crate::domain::id::{key, same};
use crate::domain::{
    Attachment, Backup, BackupMetadata, ColumnSet, Image, QuotaUsage, Reservation, ServiceRow, Snapshot, StorageRow, Table, Value, Volume,
};

/// Whether a row is locked while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is only read.
    None,
    /// It is locked until the transaction ends.
    Held,
}

/// A row of one of the tables that the program may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Of `backups`.
    Backup(Box<Backup>),
    /// Of `volumes`.
    Volume(Volume),
    /// Of `snapshots`.
    Snapshot(Snapshot),
    /// Of `backup_metadata`.
    Metadata(BackupMetadata),
    /// Of `quota_usages`.
    Quota(QuotaUsage),
    /// Of `reservations`.
    Reservation(Reservation),
}

impl Row {
    /// The guarded columns.
    pub fn image(&self, columns: ColumnSet) -> Image {
        match self {
            Self::Backup(row) => row.image(columns),
            Self::Volume(row) => row.image(columns),
            Self::Snapshot(row) => row.image(),
            Self::Metadata(row) => row.image(),
            Self::Quota(row) => row.image(),
            Self::Reservation(row) => row.image(),
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Backup(row) => &row.id,
            Self::Volume(row) => &row.id,
            Self::Snapshot(row) => &row.id,
            Self::Metadata(row) => &row.id,
            Self::Quota(row) => &row.id,
            Self::Reservation(row) => &row.id,
        }
    }

    /// Whether it is deleted. Of the other tables, only rows that are not are read.
    pub fn is_deleted(&self) -> bool {
        match self {
            Self::Backup(row) => row.deleted,
            Self::Metadata(row) => row.deleted,
            Self::Reservation(row) => row.deleted,
            Self::Volume(_) | Self::Snapshot(_) | Self::Quota(_) => false,
        }
    }
}

/// What [`Reader::rows_of_unit`] reads.
pub struct UnitAnswers {
    /// One for each row that was wanted, in their order.
    pub rows: Vec<Option<Row>>,
    /// The live attachments.
    pub attachments: Vec<Attachment>,
    /// The reservations of the project, if they were counted.
    pub totals: ReservationTotals,
    /// The live ones.
    pub live_reservations: Vec<Reservation>,
}

/// The reservations that [`Reader::rows_of_unit`] reads.
#[derive(Clone, Copy)]
pub struct ReservationQuery<'a> {
    /// The id of their project.
    pub project: &'a str,
    /// Whether all its reservations are counted, too. This reads each of them.
    pub with_totals: bool,
}

/// The reservations of a project for backups and their gigabytes. If they are the same twice, the project made and ended none in
/// between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReservationTotals {
    /// How many are live: open or expired.
    pub live: i64,
    /// How many rows there are, those that are deleted among them.
    pub made: i64,
    /// The greatest id.
    pub newest: i64,
}

/// Rows that this process has read, for the progress display.
static ROWS_READ: AtomicU64 = AtomicU64::new(0);

/// How many rows this process has read so far.
pub fn rows_read() -> u64 {
    ROWS_READ.load(Ordering::Relaxed)
}

/// Reads Cinder's rows.
pub struct Reader<'a> {
    /// The session.
    pub session: &'a mut dyn Session,
    /// What the database has.
    pub schema: &'a Schema,
}

/// Cells of a row, taken one after the other.
struct Cells<'a> {
    cells: std::slice::IterMut<'a, Value>,
    /// The first guarded column with a value that no guard can compare, and that value.
    unchangeable: Option<(&'static str, String)>,
}

impl<'a> Cells<'a> {
    fn of(row: &'a mut [Value]) -> Self {
        Self { cells: row.iter_mut(), unchangeable: None }
    }

    fn next(&mut self) -> Value {
        self.cells.next().map(std::mem::take).unwrap_or_default()
    }

    fn text(&mut self) -> Option<String> {
        as_text(self.next())
    }

    fn integer(&mut self) -> Option<i64> {
        as_integer(&self.next())
    }

    /// The text of a guarded column.
    fn guarded(&mut self, column: &'static str) -> Option<String> {
        let cell = self.next();
        self.note(column, &cell, matches!(cell, Value::Null | Value::Text(_)));
        as_text(cell)
    }

    /// The integer of a guarded column.
    fn guarded_integer(&mut self, column: &'static str) -> Option<i64> {
        let cell = self.next();
        self.note(column, &cell, matches!(cell, Value::Null | Value::Integer(_)));
        as_integer(&cell)
    }

    fn note(&mut self, column: &'static str, cell: &Value, fits: bool) {
        if !fits && self.unchangeable.is_none() {
            self.unchangeable = Some((column, as_text(cell.clone()).unwrap_or_default()));
        }
    }

    /// Why the row cannot be changed: a guarded column holds a value that a guard cannot compare or an undo cannot put back.
    fn unchangeable(self, table: Table, id: &str) -> Option<String> {
        let (column, shown) = self.unchangeable?;
        Some(format!(
            "{table}.{column} of {id} holds {shown:?} in a type or an encoding that Cinder does not write there, so a change could not \
             be guarded or undone exactly; correct that value by hand first"
        ))
    }
}

fn as_text(cell: Value) -> Option<String> {
    match cell {
        Value::Text(text) | Value::Unsupported(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Null => None,
    }
}

fn as_integer(cell: &Value) -> Option<i64> {
    match cell {
        Value::Integer(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        Value::Null | Value::Unsupported(_) => None,
    }
}

fn backup(row: &mut [Value]) -> Backup {
    let mut cells = Cells::of(row);
    let mut backup = Backup {
        id: cells.text().unwrap_or_default(),
        status: cells.guarded("status"),
        host: cells.guarded("host"),
        availability_zone: cells.guarded("availability_zone"),
        service: cells.guarded("service"),
        volume_id: cells.guarded("volume_id"),
        display_name: cells.text(),
        project_id: cells.text(),
        size: cells.guarded_integer("size"),
        object_count: cells.guarded_integer("object_count"),
        container: cells.guarded("container"),
        service_metadata: cells.guarded("service_metadata"),
        fail_reason: cells.guarded("fail_reason"),
        created_at: cells.text(),
        updated_at: cells.guarded("updated_at"),
        parent_id: cells.guarded("parent_id"),
        temp_volume_id: cells.guarded("temp_volume_id"),
        temp_snapshot_id: cells.guarded("temp_snapshot_id"),
        num_dependent_backups: cells.guarded_integer("num_dependent_backups"),
        snapshot_id: cells.guarded("snapshot_id"),
        restore_volume_id: cells.guarded("restore_volume_id"),
        // A list has only rows that are not.
        deleted: cells.integer() == Some(1),
        deleted_at: cells.text(),
        unchangeable: None,
    };
    backup.unchangeable = cells.unchangeable(Table::Backups, &backup.id);
    backup
}

/// The counted columns of a live backup; the others are empty.
fn counted(row: &mut [Value]) -> Backup {
    let mut cells = Cells::of(row);
    Backup {
        id: cells.text().unwrap_or_default(),
        status: cells.text(),
        host: cells.text(),
        volume_id: cells.text(),
        display_name: cells.text(),
        project_id: cells.text(),
        size: cells.integer(),
        parent_id: cells.text(),
        temp_volume_id: cells.text(),
        temp_snapshot_id: cells.text(),
        num_dependent_backups: cells.integer(),
        ..Backup::default()
    }
}

/// A live backup with its id and the columns that refer to other rows; the other columns are empty.
fn references(row: &mut [Value]) -> Backup {
    let mut cells = Cells::of(row);
    Backup {
        id: cells.text().unwrap_or_default(),
        volume_id: cells.text(),
        parent_id: cells.text(),
        snapshot_id: cells.text(),
        restore_volume_id: cells.text(),
        ..Backup::default()
    }
}

fn volume(row: &mut [Value]) -> Volume {
    let mut cells = Cells::of(row);
    let mut volume = Volume {
        id: cells.text().unwrap_or_default(),
        status: cells.guarded("status"),
        attach_status: cells.guarded("attach_status"),
        size: cells.integer(),
        display_name: cells.text(),
        project_id: cells.text(),
        created_at: cells.text(),
        updated_at: cells.guarded("updated_at"),
        previous_status: cells.guarded("previous_status"),
        unchangeable: None,
    };
    volume.unchangeable = cells.unchangeable(Table::Volumes, &volume.id);
    volume
}

fn snapshot(row: &mut [Value]) -> Snapshot {
    let mut cells = Cells::of(row);
    let mut snapshot = Snapshot {
        id: cells.text().unwrap_or_default(),
        status: cells.guarded("status"),
        volume_id: cells.guarded("volume_id"),
        display_name: cells.text(),
        project_id: cells.text(),
        created_at: cells.text(),
        updated_at: cells.guarded("updated_at"),
        unchangeable: None,
    };
    snapshot.unchangeable = cells.unchangeable(Table::Snapshots, &snapshot.id);
    snapshot
}

fn attachment(row: &mut [Value]) -> Attachment {
    let mut cells = Cells::of(row);
    Attachment {
        id: cells.text().unwrap_or_default(),
        volume_id: cells.text().unwrap_or_default(),
        instance_uuid: cells.text(),
        attached_host: cells.text(),
        attach_status: cells.text(),
    }
}

fn metadata(row: &mut [Value]) -> BackupMetadata {
    let mut cells = Cells::of(row);
    BackupMetadata {
        id: cells.text().unwrap_or_default(),
        backup_id: cells.text().unwrap_or_default(),
        deleted: cells.integer() == Some(1),
    }
}

fn stored(row: &mut [Value]) -> StorageRow {
    let mut cells = Cells::of(row);
    StorageRow {
        id: cells.text().unwrap_or_default(),
        // A row whose flag cannot be read counts as live, so that its objects are not taken for orphans.
        deleted: cells.integer().is_some_and(|flag| flag != 0),
        status: cells.text(),
        service: cells.text(),
        container: cells.text(),
        service_metadata: cells.text(),
        volume_id: cells.text(),
        project_id: cells.text(),
        deleted_at: cells.text(),
    }
}

fn quota(row: &mut [Value]) -> QuotaUsage {
    let mut cells = Cells::of(row);
    QuotaUsage {
        id: cells.text().unwrap_or_default(),
        project_id: cells.text().unwrap_or_default(),
        resource: cells.text().unwrap_or_default(),
        in_use: cells.integer().unwrap_or_default(),
        reserved: cells.integer().unwrap_or_default(),
    }
}

fn reservation(row: &mut [Value]) -> Reservation {
    let mut cells = Cells::of(row);
    Reservation {
        id: cells.text().unwrap_or_default(),
        project_id: cells.text().unwrap_or_default(),
        usage_id: cells.integer(),
        resource: cells.text().unwrap_or_default(),
        delta: cells.integer().unwrap_or_default(),
        expire: cells.text(),
        deleted: cells.integer() == Some(1),
    }
}

/// The reservations of a project, with its id.
fn totals(row: &mut [Value]) -> (String, ReservationTotals) {
    let mut cells = Cells::of(row);
    let project = cells.text().unwrap_or_default();
    let mut number = || cells.integer().unwrap_or_default();
    (project, ReservationTotals { live: number(), made: number(), newest: number() })
}

impl Reader<'_> {
    /// Reads every live backup, one at a time, with the counted columns only: id, status, host, volume, name, project, size, parent,
    /// temporary volume and snapshot, and its own count of dependents.
    pub fn live_backups(&mut self, each: &mut dyn FnMut(Backup)) -> Result<(), DbError> {
        self.live_backups_until(&mut |backup| {
            each(backup);
            ControlFlow::Continue(())
        })
    }

    /// As [`Self::live_backups`], until `each` breaks.
    pub fn live_backups_until(&mut self, each: &mut dyn FnMut(Backup) -> ControlFlow<()>) -> Result<(), DbError> {
        let statement = if self.schema.columns == ColumnSet::Juno { &sql::BACKUPS_LIVE_JUNO } else { &sql::BACKUPS_LIVE_LIBERTY };
        self.session.query(statement, &[], &mut |row| {
            ROWS_READ.fetch_add(1, Ordering::Relaxed);
            each(counted(row))
        })
    }

    /// Whether the database finds a row by its id in another spelling.
    pub fn ignores_case(&self) -> bool {
        matches!(self.session.server().engine, Engine::Mysql | Engine::Mariadb)
    }

    /// Live backups by id, in batches.
    pub fn backups(&mut self, ids: &[String]) -> Result<Vec<Backup>, DbError> {
        let statement = match self.schema.columns {
            ColumnSet::Juno => &sql::BACKUPS_BY_IDS_JUNO,
            ColumnSet::Liberty => &sql::BACKUPS_BY_IDS_LIBERTY,
            ColumnSet::Mitaka => &sql::BACKUPS_BY_IDS_MITAKA,
        };
        self.by_ids(statement, ids, backup)
    }

    /// Reads where every backup is stored, including deleted ones, one at a time. Backups without a driver never began and are left out.
    pub fn stored_backups(&mut self, each: &mut dyn FnMut(StorageRow)) -> Result<(), DbError> {
        self.each(&sql::BACKUPS_STORED, &[], &mut |row| each(stored(row)))
    }

    /// The same for the backups with these ids, in batches.
    pub fn stored_backups_by_id(&mut self, ids: &[String]) -> Result<Vec<StorageRow>, DbError> {
        self.by_ids(&sql::BACKUPS_STORED_BY_IDS, ids, stored)
    }

    /// Reads where, when and by which host every available backup was stored, one at a time.
    pub fn available_backups(&mut self, each: &mut dyn FnMut(Backup)) -> Result<(), DbError> {
        self.each(&sql::BACKUPS_AVAILABLE, &[], &mut |row| {
            let mut cells = Cells::of(row);
            let id = cells.text().unwrap_or_default();
            let [host, service, container, project_id, created_at] = [(); 5].map(|()| cells.text());
            each(Backup { id, host, service, container, project_id, created_at, ..Backup::default() });
        })
    }

    /// Reads what every live backup refers to, one backup at a time: its volume, parent and snapshot, and the volume that it was last
    /// restored to.
    pub fn references(&mut self, each: &mut dyn FnMut(Backup)) -> Result<(), DbError> {
        let statement = match self.schema.columns {
            ColumnSet::Juno => &sql::BACKUPS_REFERENCES_JUNO,
            ColumnSet::Liberty => &sql::BACKUPS_REFERENCES_LIBERTY,
            ColumnSet::Mitaka => &sql::BACKUPS_REFERENCES_MITAKA,
        };
        self.each(statement, &[], &mut |row| each(references(row)))
    }

    /// Volumes that a backup or restore holds, or without a status.
    pub fn pending_volumes(&mut self, each: &mut dyn FnMut(Volume)) -> Result<(), DbError> {
        let statement = if self.schema.columns == ColumnSet::Juno { &sql::VOLUMES_PENDING_JUNO } else { &sql::VOLUMES_PENDING_LIBERTY };
        self.each(statement, &[], &mut |row| each(volume(row)))
    }

    /// Live volumes by id, in batches.
    pub fn volumes(&mut self, ids: &[String]) -> Result<Vec<Volume>, DbError> {
        let statement = if self.schema.columns == ColumnSet::Juno { &sql::VOLUMES_BY_IDS_JUNO } else { &sql::VOLUMES_BY_IDS_LIBERTY };
        self.by_ids(statement, ids, volume)
    }

    /// Snapshots that a backup holds.
    pub fn pending_snapshots(&mut self, each: &mut dyn FnMut(Snapshot)) -> Result<(), DbError> {
        self.each(&sql::SNAPSHOTS_PENDING, &[], &mut |row| each(snapshot(row)))
    }

    /// Live snapshots by id, in batches.
    pub fn snapshots(&mut self, ids: &[String]) -> Result<Vec<Snapshot>, DbError> {
        self.by_ids(&sql::SNAPSHOTS_BY_IDS, ids, snapshot)
    }

    /// Live attachments by volume, in batches; none where the table does not exist.
    pub fn attachments(&mut self, volumes: &[String]) -> Result<Vec<Attachment>, DbError> {
        if !self.schema.has_attachments {
            return Ok(Vec::new());
        }
        self.by_ids(&sql::ATTACHMENTS_BY_VOLUMES, volumes, attachment)
    }

    /// Live attachments that hosts hold for themselves.
    pub fn host_attachments(&mut self, each: &mut dyn FnMut(Attachment)) -> Result<(), DbError> {
        if !self.schema.has_attachments {
            return Ok(());
        }
        self.each(&sql::ATTACHMENTS_OF_HOSTS, &[], &mut |row| each(attachment(row)))
    }

    /// The heartbeats.
    pub fn services(&mut self) -> Result<Vec<ServiceRow>, DbError> {
        let mut found = Vec::new();
        let statement = if self.schema.has_report_count { &sql::SERVICES_BACKUP } else { &sql::SERVICES_BACKUP_UNCOUNTED };
        self.each(statement, &[], &mut |row| {
            let mut cells = Cells::of(row);
            if let Some(host) = cells.text() {
                let (updated_at, created_at) = (cells.text(), cells.text());
                let flag = |cells: &mut Cells<'_>| cells.integer().is_some_and(|flag| flag != 0);
                let (deleted, availability_zone, disabled) = (flag(&mut cells), cells.text(), flag(&mut cells));
                let report_count = cells.integer();
                found.push(ServiceRow { host, updated_at, created_at, report_count, availability_zone, disabled, deleted });
            }
        })?;
        Ok(found)
    }

    /// The quota usages of all projects; none where the table does not exist.
    pub fn quota_usages(&mut self) -> Result<Vec<QuotaUsage>, DbError> {
        let mut found = Vec::new();
        if self.schema.has_quotas {
            self.each(&sql::QUOTA_USAGES_BACKUP, &[], &mut |row| found.push(quota(row)))?;
        }
        Ok(found)
    }

    /// The newest message to users about each wanted backup, by [`key`]; none where this account may not read the table.
    pub fn messages(&mut self, is_wanted: &dyn Fn(&str) -> bool) -> Result<HashMap<String, UserMessage>, DbError> {
        let mut newest: HashMap<String, UserMessage> = HashMap::new();
        if self.schema.has_messages {
            self.each(&sql::MESSAGES_BACKUP, &[], &mut |row| {
                let mut cells = Cells::of(row);
                let Some(id) = cells.text().filter(|id| is_wanted(id)) else { return };
                let message = UserMessage { created_at: cells.text(), detail_id: cells.text() };
                let known = newest.entry(key(&id).into_owned()).or_default();
                if message.created_at >= known.created_at {
                    *known = message;
                }
            })?;
        }
        Ok(newest)
    }

    /// The live metadata of backups, in batches; none where the table does not exist.
    pub fn backup_metadata(&mut self, backups: &[String]) -> Result<Vec<BackupMetadata>, DbError> {
        if !self.schema.has_backup_metadata {
            return Ok(Vec::new());
        }
        self.by_ids(&sql::BACKUP_METADATA_BY_BACKUPS, backups, metadata)
    }

    /// What users have set on backups, by [`key`], in batches; none where this account may not read the table.
    pub fn user_metadata(&mut self, backups: &[String]) -> Result<HashMap<String, UserMetadata>, DbError> {
        let mut found: HashMap<String, UserMetadata> = HashMap::new();
        for batch in backups.chunks(ID_BATCH).filter(|_| self.schema.has_backup_metadata) {
            self.session.query(&sql::USER_METADATA_BY_BACKUPS, &[Param::Ids(batch.to_vec())], &mut |row| {
                let mut cells = Cells::of(row);
                let backup = cells.text().unwrap_or_default();
                found.entry(key(&backup).into_owned()).or_default().add(cells.text().as_deref(), cells.text().as_deref());
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// The backups that are encrypted, with the ids of their keys, in batches; none where there is no such column.
    pub fn backup_keys(&mut self, backups: &[String]) -> Result<Vec<(String, String)>, DbError> {
        if !self.schema.has_keys {
            return Ok(Vec::new());
        }
        self.by_ids(&sql::BACKUP_KEYS_BY_IDS, backups, |row| {
            let mut cells = Cells::of(row);
            (cells.text().unwrap_or_default(), cells.text().unwrap_or_default())
        })
    }

    /// What the quotas of projects count, in batches.
    ///
    /// # Errors
    /// As [`Reader::require_quotas`].
    pub fn quota_usages_of(&mut self, projects: &[String]) -> Result<Vec<QuotaUsage>, DbError> {
        self.require_quotas()?;
        self.by_ids(&sql::QUOTA_USAGES_BY_PROJECTS, projects, quota)
    }

    /// Requires the tables of quotas.
    ///
    /// # Errors
    /// [`DbErrorKind::Schema`] if one of them is missing, as it seems to be if the account may not read it.
    pub fn require_quotas(&self) -> Result<(), DbError> {
        if !self.schema.has_quotas || !self.schema.has_reservations {
            let message = "the tables quota_usages and reservations do not both exist, or this account may not read them: sql/grants/ has the \
                           statements for --to deleted, which does without them with --no-quota, and for --fix-quotas";
            return Err(DbError::new(DbErrorKind::Schema, message));
        }
        Ok(())
    }

    /// The reservations of projects for backups and their gigabytes, by project, in batches.
    pub fn reservation_totals(&mut self, projects: &[String]) -> Result<HashMap<String, ReservationTotals>, DbError> {
        Ok(self.by_ids(&sql::RESERVATIONS_BY_PROJECTS, projects, totals)?.into_iter().collect())
    }

    /// The live reservations of projects for backups and their gigabytes, in batches.
    pub fn live_reservations(&mut self, projects: &[String]) -> Result<Vec<Reservation>, DbError> {
        self.by_ids(&sql::RESERVATIONS_LIVE_BY_PROJECTS, projects, reservation)
    }

    /// The database server's UTC clock.
    pub fn clock(&mut self) -> Result<jiff::civil::DateTime, DbError> {
        let rows = self.session.rows(&sql::CLOCK, &[])?;
        rows.first()
            .and_then(|row| row.first())
            .and_then(Value::as_text)
            .and_then(crate::domain::time::parse)
            .ok_or_else(|| DbError::new(DbErrorKind::Other, "cannot read the clock of the database server: not a date and time"))
    }

    /// Seconds since the server started; `None` where it does not say.
    pub fn uptime(&mut self) -> Result<Option<i64>, DbError> {
        let mut rows = self.session.rows(&sql::UPTIME, &[])?;
        Ok(rows.first_mut().and_then(|row| {
            let mut cells = Cells::of(row);
            cells.text();
            cells.integer()
        }))
    }

    fn each(&mut self, statement: &Statement, params: &[Param], each: &mut dyn FnMut(&mut [Value])) -> Result<(), DbError> {
        self.session.query(statement, params, &mut |row| {
            ROWS_READ.fetch_add(1, Ordering::Relaxed);
            each(row);
            ControlFlow::Continue(())
        })
    }

    fn by_ids<T>(&mut self, statement: &Statement, ids: &[String], read: fn(&mut [Value]) -> T) -> Result<Vec<T>, DbError> {
        let mut found = Vec::with_capacity(ids.len());
        for batch in ids.chunks(ID_BATCH) {
            self.each(statement, &[Param::Ids(batch.to_vec())], &mut |row| found.push(read(row)))?;
        }
        Ok(found)
    }

    /// One row; a backup, its metadata and a reservation even if they are deleted.
    pub fn row(&mut self, table: Table, id: &str, lock: Lock) -> Result<Option<Row>, DbError> {
        let answers = self.session.pipeline(&[self.row_step(table, id, lock)])?;
        Ok(answers.first().and_then(|answer| row_in(answer, table, id)))
    }

    /// Begins a transaction and reads rows in it, then the live attachments of some volumes, and the reservations of a project.
    pub fn rows_of_unit(
        &mut self,
        access: Access,
        wanted: &[(Table, &str)],
        lock: Lock,
        (volumes, reservations): (&[&str], Option<ReservationQuery<'_>>),
    ) -> Result<UnitAnswers, DbError> {
        let volumes = if self.schema.has_attachments { volumes } else { &[] };
        let mut steps: Vec<PipelineStep> = wanted.iter().map(|(table, id)| self.row_step(*table, id, lock)).collect();
        steps.extend(volumes.iter().map(|volume| PipelineStep::Query(&sql::ATTACHMENTS_BY_VOLUME, vec![(*volume).into()])));
        // After its rows of quota_usages are locked, so that nobody can reserve anything meanwhile.
        if let Some(ReservationQuery { project, with_totals }) = reservations {
            let statements = [&sql::RESERVATIONS_LIVE_BY_PROJECTS, &sql::RESERVATIONS_BY_PROJECTS];
            let wanted = statements.into_iter().take(if with_totals { 2 } else { 1 });
            steps.extend(wanted.map(|statement| PipelineStep::Query(statement, vec![Param::Ids(vec![project.to_owned()])])));
        }
        let answers = self.session.begin_with(access, &steps)?;
        let rows = wanted.iter().zip(&answers).map(|((table, id), answer)| row_in(answer, *table, id)).collect();
        let mut others = answers.iter().skip(wanted.len()).map(|answer| match answer {
            StepResult::Rows(rows) => rows.as_slice(),
            StepResult::Matched(_) => &[],
        });
        let attachments = others.by_ref().take(volumes.len()).flatten().map(|row| attachment(&mut row.clone())).collect();
        let live_reservations = others.next().unwrap_or_default().iter().map(|row| reservation(&mut row.clone())).collect();
        let totals = others.next().and_then(<[_]>::first).map(|row| totals(&mut row.clone()).1).unwrap_or_default();
        Ok(UnitAnswers { rows, attachments, totals, live_reservations })
    }

    /// The step that reads one row; [`row_in`] finds it in the answer.
    pub fn row_step(&self, table: Table, id: &str, lock: Lock) -> PipelineStep {
        use ColumnSet::{Juno, Liberty, Mitaka};
        let statement = match (table, self.schema.columns, lock) {
            (Table::Backups, Juno, Lock::None) => &sql::BACKUP_BY_ID_JUNO,
            (Table::Backups, Juno, Lock::Held) => &sql::BACKUP_LOCK_JUNO,
            (Table::Backups, Liberty, Lock::None) => &sql::BACKUP_BY_ID_LIBERTY,
            (Table::Backups, Liberty, Lock::Held) => &sql::BACKUP_LOCK_LIBERTY,
            (Table::Backups, Mitaka, Lock::None) => &sql::BACKUP_BY_ID_MITAKA,
            (Table::Backups, Mitaka, Lock::Held) => &sql::BACKUP_LOCK_MITAKA,
            (Table::Volumes, Juno, Lock::None) => &sql::VOLUME_BY_ID_JUNO,
            (Table::Volumes, Juno, Lock::Held) => &sql::VOLUME_LOCK_JUNO,
            (Table::Volumes, _, Lock::None) => &sql::VOLUME_BY_ID_LIBERTY,
            (Table::Volumes, _, Lock::Held) => &sql::VOLUME_LOCK_LIBERTY,
            (Table::Snapshots, _, Lock::None) => &sql::SNAPSHOT_BY_ID,
            (Table::Snapshots, _, Lock::Held) => &sql::SNAPSHOT_LOCK,
            (Table::BackupMetadata, _, Lock::None) => &sql::BACKUP_METADATA_BY_ID,
            (Table::BackupMetadata, _, Lock::Held) => &sql::BACKUP_METADATA_LOCK,
            (Table::QuotaUsages, _, Lock::None) => &sql::QUOTA_USAGE_BY_ID,
            (Table::QuotaUsages, _, Lock::Held) => &sql::QUOTA_USAGE_LOCK,
            (Table::Reservations, _, Lock::None) => &sql::RESERVATION_BY_ID,
            (Table::Reservations, _, Lock::Held) => &sql::RESERVATION_LOCK,
        };
        PipelineStep::Query(statement, vec![Param::One(table.key(id))])
    }
}

/// The row in the answer to a [`Reader::row_step`].
pub fn row_in(answer: &StepResult, table: Table, id: &str) -> Option<Row> {
    let StepResult::Rows(rows) = answer else { return None };
    let read = |cells: &Vec<Value>| {
        let mut cells = cells.clone();
        match table {
            Table::Backups => Row::Backup(Box::new(backup(&mut cells))),
            Table::Volumes => Row::Volume(volume(&mut cells)),
            Table::Snapshots => Row::Snapshot(snapshot(&mut cells)),
            Table::BackupMetadata => Row::Metadata(metadata(&mut cells)),
            Table::QuotaUsages => Row::Quota(quota(&mut cells)),
            Table::Reservations => Row::Reservation(reservation(&mut cells)),
        }
    };
    // A collation that regards other letters than ASCII's alike could hand out another row.
    rows.last().map(read).filter(|row| same(row.id(), id))
}
