//! From a row as it was seen and the changes to it, to the one guarded UPDATE that makes them.

use crate::audit::record::StatementText;
use crate::db::literal::inline;
use crate::db::statements as sql;
use crate::db::{Engine, Param, Statement};
use crate::domain::{Change, ColumnSet, Image, Table};

/// A guarded UPDATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub statement: &'static Statement,
    /// Its parameters: the new values, the id, the guards.
    pub params: Vec<Param>,
    /// The guarded columns, in the order of the last parameters.
    guards: Vec<&'static str>,
}

impl Write {
    /// The number, from 1, of the parameter that guards a column.
    pub fn guard(&self, column: &str) -> Option<usize> {
        let place = self.guards.iter().position(|guard| *guard == column)?;
        Some(self.params.len() - self.guards.len() + place + 1)
    }
}

const BACKUP_SETS: &[&str] = &["status", "size", "object_count", "service_metadata", "fail_reason"];
const BACKUP_GUARDS: &[&str] = &[
    "status",
    "host",
    "availability_zone",
    "service",
    "volume_id",
    "size",
    "object_count",
    "container",
    "service_metadata",
    "fail_reason",
    "updated_at",
];
const LIBERTY_GUARDS: &[&str] = &["parent_id", "temp_volume_id", "temp_snapshot_id", "num_dependent_backups"];
const MITAKA_GUARDS: &[&str] = &["snapshot_id", "restore_volume_id"];

/// The UPDATE that makes `changes` (those of this row) to a row that is as `now` shows it. `deleted_at` is the time of a
/// deletion; without it, the database takes its own clock.
pub fn update(columns: ColumnSet, now: &Image, changes: &[&Change], deleted_at: Option<&str>) -> Write {
    let is_changed = |column: &str| changes.iter().any(|change| change.column == column);
    let (statement, sets, guards): (&'static Statement, Vec<&'static str>, Vec<&'static str>) = match (now.table, columns) {
        // A statement of its own, because it needs privileges that other repairs do not need.
        (Table::Backups, _) if is_changed("host") => {
            let (statement, more): (_, &[&[&str]]) = match columns {
                ColumnSet::Juno => (&sql::BACKUP_UPDATE_HOST_JUNO, &[]),
                ColumnSet::Liberty => (&sql::BACKUP_UPDATE_HOST_LIBERTY, &[LIBERTY_GUARDS]),
                ColumnSet::Mitaka => (&sql::BACKUP_UPDATE_HOST_MITAKA, &[LIBERTY_GUARDS, MITAKA_GUARDS]),
            };
            (statement, vec!["host", "availability_zone"], [&[BACKUP_GUARDS], more].concat().concat())
        }
        (Table::Backups, ColumnSet::Juno) => (&sql::BACKUP_UPDATE_JUNO, BACKUP_SETS.to_vec(), BACKUP_GUARDS.to_vec()),
        (Table::Backups, ColumnSet::Liberty) => {
            (&sql::BACKUP_UPDATE_LIBERTY, [BACKUP_SETS, &["num_dependent_backups"]].concat(), [BACKUP_GUARDS, LIBERTY_GUARDS].concat())
        }
        (Table::Backups, ColumnSet::Mitaka) if is_changed("deleted") => (
            &sql::BACKUP_UPDATE_DELETED_MITAKA,
            vec!["status", "deleted", "deleted_at"],
            [&["deleted"], BACKUP_GUARDS, LIBERTY_GUARDS, MITAKA_GUARDS].concat(),
        ),
        (Table::Backups, ColumnSet::Mitaka) => (
            &sql::BACKUP_UPDATE_MITAKA,
            [BACKUP_SETS, &["num_dependent_backups"]].concat(),
            [BACKUP_GUARDS, LIBERTY_GUARDS, MITAKA_GUARDS].concat(),
        ),
        (Table::Volumes, ColumnSet::Juno) => (&sql::VOLUME_UPDATE_JUNO, vec!["status"], vec!["status", "attach_status", "updated_at"]),
        (Table::Volumes, _) => {
            (&sql::VOLUME_UPDATE_LIBERTY, vec!["status"], vec!["status", "attach_status", "updated_at", "previous_status"])
        }
        (Table::Snapshots, _) => (&sql::SNAPSHOT_UPDATE, vec!["status"], vec!["status", "volume_id", "updated_at"]),
        (Table::BackupMetadata, _) => (&sql::BACKUP_METADATA_UPDATE, vec!["deleted"], vec!["deleted", "backup_id"]),
        (Table::QuotaUsages, _) => {
            (&sql::QUOTA_USAGE_UPDATE, vec!["in_use", "reserved"], vec!["project_id", "resource", "in_use", "reserved"])
        }
        (Table::Reservations, _) => {
            (&sql::RESERVATION_UPDATE, vec!["deleted"], vec!["deleted", "project_id", "usage_id", "resource", "delta", "expire"])
        }
    };
    let wanted = |column: &&str| -> Param {
        if *column == "deleted_at" {
            return Param::One(deleted_at.into());
        }
        let changed = changes.iter().find(|change| change.column == **column).map(|change| &change.to);
        Param::One(changed.unwrap_or_else(|| now.value(column)).clone())
    };
    let guard = |column: &&str| Param::One(now.value(column).clone());
    let params = sets.iter().map(wanted).chain([Param::One(now.table.key(&now.id))]).chain(guards.iter().map(guard)).collect();
    Write { statement, params, guards }
}

/// The UPDATEs that make `changes` to rows as `before` shows them, each with its row. Values replace the placeholders. `since` may give an
/// expression for the `updated_at` of a row, which is not known yet; for `deleted_at` see [`update`].
pub fn statements<'u>(
    before: &[Image],
    changes: &'u [Change],
    columns: ColumnSet,
    engine: Engine,
    deleted_at: Option<&str>,
    since: &dyn Fn(Table, &str) -> Option<String>,
) -> Vec<((Table, &'u str), StatementText)> {
    by_row(changes)
        .into_iter()
        .filter_map(|((table, id), changes)| {
            let write = update(columns, Image::of(before, table, id)?, &changes, deleted_at);
            let since = write.guard("updated_at").zip(since(table, id));
            let sql = inline(write.statement.text(engine), engine, &write.params, since).unwrap_or_else(|error| error.to_string());
            Some(((table, id), StatementText { name: write.statement.name.to_owned(), sql }))
        })
        .collect()
}

/// The changes of a unit, row by row, in the order in which rows are locked.
pub fn by_row(changes: &[Change]) -> Vec<((Table, &str), Vec<&Change>)> {
    let mut rows: Vec<((Table, &str), Vec<&Change>)> = Vec::new();
    for change in changes {
        let key = (change.table, change.id.as_str());
        match rows.iter_mut().find(|(row, _)| *row == key) {
            Some((_, list)) => list.push(change),
            None => rows.push((key, vec![change])),
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Backup, Snapshot, Volume};

    #[test]
    fn every_update_has_as_many_parameters_as_placeholders() {
        let images = |columns| [Backup::default().image(columns), Volume::default().image(columns), Snapshot::default().image()];
        for columns in [ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka] {
            for image in images(columns) {
                let write = update(columns, &image, &[], None);
                let text = write.statement.text(Engine::Mysql);
                let placeholders = text.lines().filter(|line| !line.starts_with("--")).flat_map(str::chars).filter(|c| *c == '?').count();
                assert_eq!(placeholders, write.params.len(), "{}", write.statement.name);
                let last = format!("?{}", write.params.len());
                assert!(write.statement.text(Engine::Sqlite).trim_end().ends_with(&format!("{last};")), "{}", write.statement.name);
                assert!(write.statement.text(Engine::Postgresql).contains(&last.replace('?', "$")), "{}", write.statement.name);
            }
        }
    }

    #[test]
    fn a_guard_is_found_by_its_column() {
        let image = Backup { updated_at: Some("then".into()), ..Backup::default() }.image(ColumnSet::Mitaka);
        let write = update(ColumnSet::Mitaka, &image, &[], None);
        let number = write.guard("updated_at").unwrap();
        assert_eq!(write.params.get(number - 1), Some(&Param::One("then".into())));
        assert!(write.statement.text(Engine::Postgresql).contains(&format!("updated_at IS NOT DISTINCT FROM CAST(${number} ")));
        assert_eq!(write.guard("display_name"), None);
    }

    #[test]
    fn every_guarded_column_of_an_image_is_in_its_statement() {
        for columns in [ColumnSet::Juno, ColumnSet::Liberty, ColumnSet::Mitaka] {
            for image in [Backup::default().image(columns), Volume::default().image(columns), Snapshot::default().image()] {
                let text = update(columns, &image, &[], None).statement.text(Engine::Mysql);
                let (_, guards) = text.split_once(" WHERE ").unwrap();
                for column in image.columns.keys() {
                    let guard = ["{} <=>", "CAST({} AS CHAR) <=>", "{} = 0"].map(|guard| format!("   AND {}", guard.replace("{}", column)));
                    assert!(guard.iter().any(|guard| guards.contains(guard)), "{column}");
                }
            }
        }
    }
}
