//! Cinder's rows out of a session: which statement fits the columns, and what its cells mean.

use std::ops::ControlFlow;

use crate::db::schema::Schema;
use crate::db::statements as sql;
use crate::db::{Answer, DbError, DbErrorKind, ID_BATCH, Param, Session, Statement, Step};
use crate::domain::id::same;
use crate::domain::{Attachment, Backup, ColumnSet, Image, ServiceRow, Snapshot, Table, Value, Volume};

/// Whether a row is locked while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is only looked at.
    None,
    /// It is held until the transaction ends.
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
}

impl Row {
    /// The guarded columns.
    pub fn image(&self, columns: ColumnSet) -> Image {
        match self {
            Self::Backup(row) => row.image(columns),
            Self::Volume(row) => row.image(columns),
            Self::Snapshot(row) => row.image(),
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Backup(row) => &row.id,
            Self::Volume(row) => &row.id,
            Self::Snapshot(row) => &row.id,
        }
    }
}

/// Reads Cinder's rows.
pub struct Reader<'a> {
    /// The session.
    pub session: &'a mut dyn Session,
    /// What the database has.
    pub schema: &'a Schema,
}

/// Cells of a row, taken one after the other.
struct Cells<'a>(std::slice::IterMut<'a, Value>);

impl Cells<'_> {
    fn text(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Some(std::mem::take(text)),
            Some(Value::Integer(number)) => Some(number.to_string()),
            Some(Value::Null) | None => None,
        }
    }

    fn integer(&mut self) -> Option<i64> {
        match self.0.next() {
            Some(Value::Integer(number)) => Some(*number),
            Some(Value::Text(text)) => text.parse().ok(),
            Some(Value::Null) | None => None,
        }
    }
}

fn backup(row: &mut [Value]) -> Backup {
    let mut cells = Cells(row.iter_mut());
    Backup {
        id: cells.text().unwrap_or_default(),
        status: cells.text(),
        host: cells.text(),
        service: cells.text(),
        volume_id: cells.text(),
        display_name: cells.text(),
        project_id: cells.text(),
        size: cells.integer(),
        object_count: cells.integer(),
        container: cells.text(),
        service_metadata: cells.text(),
        fail_reason: cells.text(),
        created_at: cells.text(),
        updated_at: cells.text(),
        parent_id: cells.text(),
        temp_volume_id: cells.text(),
        temp_snapshot_id: cells.text(),
        num_dependent_backups: cells.integer(),
        snapshot_id: cells.text(),
        restore_volume_id: cells.text(),
    }
}

/// What is counted of a live backup; the rest is left empty.
fn counted(row: &mut [Value]) -> Backup {
    let mut cells = Cells(row.iter_mut());
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

fn volume(row: &mut [Value]) -> Volume {
    let mut cells = Cells(row.iter_mut());
    Volume {
        id: cells.text().unwrap_or_default(),
        status: cells.text(),
        attach_status: cells.text(),
        size: cells.integer(),
        display_name: cells.text(),
        project_id: cells.text(),
        created_at: cells.text(),
        updated_at: cells.text(),
        previous_status: cells.text(),
    }
}

fn snapshot(row: &mut [Value]) -> Snapshot {
    let mut cells = Cells(row.iter_mut());
    Snapshot {
        id: cells.text().unwrap_or_default(),
        status: cells.text(),
        volume_id: cells.text(),
        display_name: cells.text(),
        project_id: cells.text(),
        created_at: cells.text(),
        updated_at: cells.text(),
    }
}

fn attachment(row: &mut [Value]) -> Attachment {
    let mut cells = Cells(row.iter_mut());
    Attachment {
        id: cells.text().unwrap_or_default(),
        volume_id: cells.text().unwrap_or_default(),
        instance_uuid: cells.text(),
        attached_host: cells.text(),
        attach_status: cells.text(),
    }
}

impl Reader<'_> {
    /// Every live backup, one at a time, with no more than is counted: id, status, host, volume, name, project, size, parent,
    /// temporary volume and snapshot, and its own count of dependents.
    pub fn live_backups(&mut self, each: &mut dyn FnMut(Backup)) -> Result<(), DbError> {
        let statement = if self.schema.columns == ColumnSet::Juno { &sql::BACKUPS_LIVE_JUNO } else { &sql::BACKUPS_LIVE_LIBERTY };
        self.each(statement, &[], &mut |row| each(counted(row)))
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

    /// Live backups by their parents' ids, in batches.
    pub fn children(&mut self, parents: &[String]) -> Result<Vec<Backup>, DbError> {
        match self.schema.columns {
            ColumnSet::Juno => Ok(Vec::new()),
            ColumnSet::Liberty => self.by_ids(&sql::BACKUPS_BY_PARENTS_LIBERTY, parents, backup),
            ColumnSet::Mitaka => self.by_ids(&sql::BACKUPS_BY_PARENTS_MITAKA, parents, backup),
        }
    }

    /// Live backups, whatever their status, that are made of these volumes, in batches.
    pub fn backups_of_volumes(&mut self, volumes: &[String]) -> Result<Vec<Backup>, DbError> {
        let statement = match self.schema.columns {
            ColumnSet::Juno => &sql::BACKUPS_BY_VOLUMES_JUNO,
            ColumnSet::Liberty => &sql::BACKUPS_BY_VOLUMES_LIBERTY,
            ColumnSet::Mitaka => &sql::BACKUPS_BY_VOLUMES_MITAKA,
        };
        self.by_ids(statement, volumes, backup)
    }

    /// Live backups, whatever their status, that were last restored to these volumes, in batches; none where that is not on record.
    pub fn backups_restored_to(&mut self, volumes: &[String]) -> Result<Vec<Backup>, DbError> {
        self.since_mitaka(&sql::BACKUPS_BY_DESTINATIONS_MITAKA, volumes)
    }

    /// Live backups, whatever their status, that are made of these snapshots, in batches; none where that is not on record.
    pub fn backups_of_snapshots(&mut self, snapshots: &[String]) -> Result<Vec<Backup>, DbError> {
        self.since_mitaka(&sql::BACKUPS_BY_SNAPSHOTS_MITAKA, snapshots)
    }

    fn since_mitaka(&mut self, statement: &Statement, ids: &[String]) -> Result<Vec<Backup>, DbError> {
        if self.schema.columns < ColumnSet::Mitaka { Ok(Vec::new()) } else { self.by_ids(statement, ids, backup) }
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
        self.each(&sql::SERVICES_BACKUP, &[], &mut |row| {
            let mut cells = Cells(row.iter_mut());
            if let Some(host) = cells.text() {
                let (updated_at, created_at) = (cells.text(), cells.text());
                found.push(ServiceRow { host, updated_at, created_at, deleted: cells.integer().is_some_and(|flag| flag != 0) });
            }
        })?;
        Ok(found)
    }

    /// What quotas think, as (project, resource, in use).
    pub fn quota_usages(&mut self) -> Result<Vec<(String, String, i64)>, DbError> {
        let mut found = Vec::new();
        if self.schema.has_quotas {
            self.each(&sql::QUOTA_USAGES_BACKUP, &[], &mut |row| {
                let mut cells = Cells(row.iter_mut());
                if let (Some(project), Some(resource)) = (cells.text(), cells.text()) {
                    found.push((project, resource, cells.integer().unwrap_or(0)));
                }
            })?;
        }
        Ok(found)
    }

    /// The database server's UTC clock.
    pub fn clock(&mut self) -> Result<jiff::civil::DateTime, DbError> {
        let rows = self.session.rows(&sql::CLOCK, &[])?;
        rows.first()
            .and_then(|row| row.first())
            .and_then(Value::as_text)
            .and_then(crate::domain::time::parse)
            .ok_or_else(|| DbError::new(DbErrorKind::Other, "the database did not tell its time in a form that can be read"))
    }

    /// Seconds since the server started; `None` where it does not say.
    pub fn uptime(&mut self) -> Result<Option<i64>, DbError> {
        let mut rows = self.session.rows(&sql::UPTIME, &[])?;
        Ok(rows.first_mut().and_then(|row| {
            let mut cells = Cells(row.iter_mut());
            cells.text();
            cells.integer()
        }))
    }

    fn each(&mut self, statement: &Statement, params: &[Param], each: &mut dyn FnMut(&mut [Value])) -> Result<(), DbError> {
        self.session.query(statement, params, &mut |row| {
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

    /// One live row.
    pub fn row(&mut self, table: Table, id: &str, lock: Lock) -> Result<Option<Row>, DbError> {
        let answers = self.session.together(&[self.row_step(table, id, lock)])?;
        Ok(answers.first().and_then(|answer| row_in(answer, table, id)))
    }

    /// Live rows, one answer each in the order in which they are wanted, and the live attachments of some volumes.
    pub fn around(
        &mut self,
        wanted: &[(Table, &str)],
        lock: Lock,
        volumes: &[&str],
    ) -> Result<(Vec<Option<Row>>, Vec<Attachment>), DbError> {
        let volumes = if self.schema.has_attachments { volumes } else { &[] };
        let mut steps: Vec<Step> = wanted.iter().map(|(table, id)| self.row_step(*table, id, lock)).collect();
        steps.extend(volumes.iter().map(|volume| Step::Query(&sql::ATTACHMENTS_BY_VOLUME, vec![(*volume).into()])));
        let answers = self.session.together(&steps)?;
        let rows = wanted.iter().zip(&answers).map(|((table, id), answer)| row_in(answer, *table, id)).collect();
        let attachments = answers.iter().skip(wanted.len()).flat_map(|answer| match answer {
            Answer::Rows(rows) => rows.as_slice(),
            Answer::Matched(_) => &[],
        });
        Ok((rows, attachments.map(|row| attachment(&mut row.clone())).collect()))
    }

    /// The step that reads one live row; [`row_in`] finds it in the answer.
    pub fn row_step(&self, table: Table, id: &str, lock: Lock) -> Step {
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
        };
        Step::Query(statement, vec![id.into()])
    }
}

/// The row in the answer to a [`Reader::row_step`].
pub fn row_in(answer: &Answer, table: Table, id: &str) -> Option<Row> {
    let Answer::Rows(rows) = answer else { return None };
    let read = |cells: &Vec<Value>| {
        let mut cells = cells.clone();
        match table {
            Table::Backups => Row::Backup(Box::new(backup(&mut cells))),
            Table::Volumes => Row::Volume(volume(&mut cells)),
            Table::Snapshots => Row::Snapshot(snapshot(&mut cells)),
        }
    };
    // A collation that regards other letters than ASCII's alike could hand out another row.
    rows.last().map(read).filter(|row| same(row.id(), id))
}
