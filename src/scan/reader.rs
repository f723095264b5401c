//! Cinder's rows out of a session: which statement fits the columns, and what its cells mean.

use std::ops::ControlFlow;

use crate::db::schema::Schema;
use crate::db::statements as sql;
use crate::db::{DbError, DbErrorKind, ID_BATCH, Param, Session, Statement};
use crate::domain::{Attachment, Backup, ColumnSet, ServiceRow, Snapshot, Value, Volume};

/// Whether a row is locked while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is only looked at.
    None,
    /// It is held until the transaction ends.
    Held,
}

/// Reads Cinder's rows.
pub struct Reader<'a> {
    /// The session.
    pub session: &'a mut dyn Session,
    /// What the database has.
    pub schema: &'a Schema,
}

/// Cells of a row, taken one after the other.
struct Cells<'a>(std::slice::Iter<'a, Value>);

impl Cells<'_> {
    fn text(&mut self) -> Option<String> {
        match self.0.next() {
            Some(Value::Text(text)) => Some(text.clone()),
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

fn backup(row: &[Value]) -> Backup {
    let mut cells = Cells(row.iter());
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

fn volume(row: &[Value]) -> Volume {
    let mut cells = Cells(row.iter());
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

fn snapshot(row: &[Value]) -> Snapshot {
    let mut cells = Cells(row.iter());
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

fn attachment(row: &[Value]) -> Attachment {
    let mut cells = Cells(row.iter());
    Attachment {
        id: cells.text().unwrap_or_default(),
        volume_id: cells.text().unwrap_or_default(),
        instance_uuid: cells.text(),
        attached_host: cells.text(),
        attach_status: cells.text(),
    }
}

impl Reader<'_> {
    /// Every live backup, one at a time.
    pub fn live_backups(&mut self, each: &mut dyn FnMut(Backup)) -> Result<(), DbError> {
        let statement = match self.schema.columns {
            ColumnSet::Juno => &sql::BACKUPS_LIVE_JUNO,
            ColumnSet::Liberty => &sql::BACKUPS_LIVE_LIBERTY,
            ColumnSet::Mitaka => &sql::BACKUPS_LIVE_MITAKA,
        };
        self.each(statement, &[], &mut |row| each(backup(row)))
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

    /// One live backup.
    pub fn backup(&mut self, id: &str, lock: Lock) -> Result<Option<Backup>, DbError> {
        let statement = match (self.schema.columns, lock) {
            (ColumnSet::Juno, Lock::None) => &sql::BACKUP_BY_ID_JUNO,
            (ColumnSet::Juno, Lock::Held) => &sql::BACKUP_LOCK_JUNO,
            (ColumnSet::Liberty, Lock::None) => &sql::BACKUP_BY_ID_LIBERTY,
            (ColumnSet::Liberty, Lock::Held) => &sql::BACKUP_LOCK_LIBERTY,
            (ColumnSet::Mitaka, Lock::None) => &sql::BACKUP_BY_ID_MITAKA,
            (ColumnSet::Mitaka, Lock::Held) => &sql::BACKUP_LOCK_MITAKA,
        };
        self.one(statement, id, backup, |found| found.id.as_str())
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

    /// One live volume.
    pub fn volume(&mut self, id: &str, lock: Lock) -> Result<Option<Volume>, DbError> {
        let statement = match (self.schema.columns, lock) {
            (ColumnSet::Juno, Lock::None) => &sql::VOLUME_BY_ID_JUNO,
            (ColumnSet::Juno, Lock::Held) => &sql::VOLUME_LOCK_JUNO,
            (_, Lock::None) => &sql::VOLUME_BY_ID_LIBERTY,
            (_, Lock::Held) => &sql::VOLUME_LOCK_LIBERTY,
        };
        self.one(statement, id, volume, |found| found.id.as_str())
    }

    /// Snapshots that a backup holds.
    pub fn pending_snapshots(&mut self, each: &mut dyn FnMut(Snapshot)) -> Result<(), DbError> {
        self.each(&sql::SNAPSHOTS_PENDING, &[], &mut |row| each(snapshot(row)))
    }

    /// Live snapshots by id, in batches.
    pub fn snapshots(&mut self, ids: &[String]) -> Result<Vec<Snapshot>, DbError> {
        self.by_ids(&sql::SNAPSHOTS_BY_IDS, ids, snapshot)
    }

    /// One live snapshot.
    pub fn snapshot(&mut self, id: &str, lock: Lock) -> Result<Option<Snapshot>, DbError> {
        let statement = if lock == Lock::None { &sql::SNAPSHOT_BY_ID } else { &sql::SNAPSHOT_LOCK };
        self.one(statement, id, snapshot, |found| found.id.as_str())
    }

    /// Live attachments by volume, in batches; none where the table does not exist.
    pub fn attachments(&mut self, volumes: &[String]) -> Result<Vec<Attachment>, DbError> {
        if !self.schema.has_attachments {
            return Ok(Vec::new());
        }
        self.by_ids(&sql::ATTACHMENTS_BY_VOLUMES, volumes, attachment)
    }

    /// Live attachments of one volume; none where the table does not exist.
    pub fn attachments_of(&mut self, volume: &str) -> Result<Vec<Attachment>, DbError> {
        let mut found = Vec::new();
        if self.schema.has_attachments {
            self.each(&sql::ATTACHMENTS_BY_VOLUME, &[volume.into()], &mut |row| found.push(attachment(row)))?;
        }
        Ok(found)
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
            let mut cells = Cells(row.iter());
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
                let mut cells = Cells(row.iter());
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
        let rows = self.session.rows(&sql::UPTIME, &[])?;
        Ok(rows.first().and_then(|row| {
            let mut cells = Cells(row.iter());
            cells.text();
            cells.integer()
        }))
    }

    fn each(&mut self, statement: &Statement, params: &[Param], each: &mut dyn FnMut(&[Value])) -> Result<(), DbError> {
        self.session.query(statement, params, &mut |row| {
            each(row);
            ControlFlow::Continue(())
        })
    }

    fn by_ids<T>(&mut self, statement: &Statement, ids: &[String], read: fn(&[Value]) -> T) -> Result<Vec<T>, DbError> {
        let mut found = Vec::with_capacity(ids.len());
        for batch in ids.chunks(ID_BATCH) {
            self.each(statement, &[Param::Ids(batch.to_vec())], &mut |row| found.push(read(row)))?;
        }
        Ok(found)
    }

    fn one<T>(&mut self, statement: &Statement, id: &str, read: fn(&[Value]) -> T, key: fn(&T) -> &str) -> Result<Option<T>, DbError> {
        let mut found = None;
        // A case-insensitive collation could hand out a row whose id is spelt differently: that is another row.
        self.each(statement, &[id.into()], &mut |row| found = Some(read(row)).filter(|row| key(row) == id))?;
        Ok(found)
    }
}
