//! Which of Cinder's tables and columns a database has, and the releases that they fit.
//!
//! Columns are looked up and never derived from a version number. The revision only names the release.

use std::collections::{BTreeSet, HashMap};

use super::statements::{REVISION_ALEMBIC, REVISION_MIGRATE, SCHEMA_COLUMNS};
use super::{DbError, DbErrorKind, Session, Statement};
use crate::domain::{ColumnSet, Value};

/// The schema of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The columns of the tables.
    pub columns: ColumnSet,
    /// The table `volume_attachment` exists.
    pub has_attachments: bool,
    /// The table `quota_usages` exists.
    pub has_quotas: bool,
    /// The table `reservations` exists.
    pub has_reservations: bool,
    /// The table `backup_metadata` exists.
    pub has_backup_metadata: bool,
    /// The table `messages` exists.
    pub has_messages: bool,
    /// `backups` has `encryption_key_id`.
    pub has_keys: bool,
    /// `services` has `report_count`, as in every release of Cinder.
    pub has_report_count: bool,
    /// The range of releases, for people: `2024.1 to 2026.2 (revision 9c74c1c6971f)`.
    pub release: String,
}

/// The columns that every supported release has.
const NEEDED: &[(&str, &[&str])] = &[
    (
        "backups",
        &[
            "id",
            "deleted",
            "status",
            "host",
            "service",
            "volume_id",
            "display_name",
            "project_id",
            "size",
            "object_count",
            "container",
            "service_metadata",
            "fail_reason",
            "created_at",
            "updated_at",
        ],
    ),
    ("volumes", &["id", "deleted", "status", "attach_status", "size", "display_name", "project_id", "created_at", "updated_at"]),
    ("snapshots", &["id", "deleted", "status", "volume_id", "display_name", "project_id", "created_at", "updated_at"]),
    ("services", &["host", "binary", "deleted", "created_at", "updated_at"]),
];

/// Columns of `backups` since Liberty.
const LIBERTY: &[&str] = &["parent_id", "temp_volume_id", "temp_snapshot_id", "num_dependent_backups"];
/// Columns of `backups` since Mitaka.
const MITAKA: &[&str] = &["snapshot_id", "restore_volume_id"];

/// Reads the schema.
///
/// # Errors
/// [`DbErrorKind::Schema`] if a table or column of Cinder's is missing.
pub fn probe(session: &mut dyn Session) -> Result<Schema, DbError> {
    let mut found: HashMap<String, BTreeSet<String>> = HashMap::new();
    for row in session.rows(&SCHEMA_COLUMNS, &[])? {
        if let [Value::Text(table), Value::Text(column)] = row.as_slice() {
            found.entry(table.to_ascii_lowercase()).or_default().insert(column.to_ascii_lowercase());
        }
    }
    let columns = column_set(&found).map_err(|problem| {
        let identity = &session.server().identity;
        let message = format!("{problem} in {identity}; check the database name, and that this account may read the table");
        DbError::new(DbErrorKind::Schema, message)
    })?;
    if let Some((table, column)) = unknown_backup_column(&found) {
        let message = format!(
            "the column {table}.{column} is unknown: this Cinder may use it instead of {table}.status to mark {table} that are backed up; \
             use a newer version of this program"
        );
        return Err(DbError::new(DbErrorKind::Schema, message));
    }
    let mut revision = None;
    // An upgraded database can have both tables; if alembic_version has a row, it is the newer one.
    for (table, statement) in [("alembic_version", &REVISION_ALEMBIC), ("migrate_version", &REVISION_MIGRATE)] {
        if revision.is_none() && found.contains_key(table) {
            revision = first_cell(session, statement)?;
        }
    }
    Ok(Schema {
        columns,
        has_attachments: found.contains_key("volume_attachment"),
        has_quotas: found.contains_key("quota_usages"),
        has_reservations: found.contains_key("reservations"),
        has_backup_metadata: found.contains_key("backup_metadata"),
        has_messages: found.contains_key("messages"),
        has_keys: found.get("backups").is_some_and(|columns| columns.contains("encryption_key_id")),
        has_report_count: found.get("services").is_some_and(|columns| columns.contains("report_count")),
        release: release(revision.as_ref(), columns),
    })
}

/// A column about backups in a table where no release up to 2026.2 has one.
fn unknown_backup_column(found: &HashMap<String, BTreeSet<String>>) -> Option<(&'static str, &str)> {
    let tables = ["volumes", "snapshots"].into_iter();
    tables.filter_map(|table| Some((table, found.get(table)?.iter().find(|column| column.contains("backup"))?.as_str()))).next()
}

fn first_cell(session: &mut dyn Session, statement: &Statement) -> Result<Option<Value>, DbError> {
    match session.rows(statement, &[]) {
        Ok(rows) => Ok(rows.into_iter().flatten().next()),
        // The revision only names the release, so an account does not need it. On PostgreSQL a failed statement would make a
        // transaction fail, so the probe must run outside one.
        Err(error) if error.kind == DbErrorKind::Privilege && !error.is_fatal() => Ok(None),
        Err(error) => Err(error),
    }
}

fn column_set(found: &HashMap<String, BTreeSet<String>>) -> Result<ColumnSet, String> {
    for (table, columns) in NEEDED {
        let Some(there) = found.get(*table) else {
            return Err(if *table == "backups" {
                "not a Cinder database: the table backups is missing".to_owned()
            } else {
                format!("not a complete Cinder database: the table {table} is missing")
            });
        };
        if let Some(missing) = columns.iter().find(|column| !there.contains(**column)) {
            return Err(format!("not a Cinder database of Icehouse or later: the column {table}.{missing} is missing"));
        }
    }
    let has = |table: &str, column: &&str| found.get(table).is_some_and(|there| there.contains(*column));
    let liberty = LIBERTY.iter().all(|column| has("backups", column)) && has("volumes", &"previous_status");
    let mitaka = MITAKA.iter().all(|column| has("backups", column));
    Ok(match (liberty, mitaka) {
        (true, true) => ColumnSet::Mitaka,
        (true, false) => ColumnSet::Liberty,
        (false, _) => ColumnSet::Juno,
    })
}

/// The last numbered migration of each release, from Cinder's release tags.
const MIGRATE: &[(i64, &str)] = &[
    (22, "Icehouse"),
    (26, "Juno"),
    (41, "Kilo"),
    (60, "Liberty"),
    (72, "Mitaka"),
    (79, "Newton"),
    (96, "Ocata"),
    (105, "Pike"),
    (117, "Queens"),
    (123, "Rocky"),
    (128, "Stein"),
    (132, "Train"),
    (136, "Ussuri"),
    (140, "Victoria"),
    (141, "Wallaby"),
    (145, "Xena or Yoga"),
];

/// The last revision of each range of releases, from Cinder's release tags.
const ALEMBIC: &[(&str, &str)] = &[
    ("921e1a36b076", "Xena or Yoga"),
    ("c92a3e68beed", "Zed"),
    ("daa98075b90d", "2023.1"),
    ("89aa6f9639f9", "2023.2"),
    ("b8660621f1b9", "2024.1 (upgrade not finished)"),
    ("9ab1b092a404", "2024.1 (upgrade not finished)"),
    ("b7b88f50aab5", "2024.1 (upgrade not finished)"),
    ("9c74c1c6971f", "2024.1 to 2026.2"),
];

fn release(revision: Option<&Value>, columns: ColumnSet) -> String {
    let by_columns = match columns {
        ColumnSet::Juno => "Icehouse to Kilo",
        ColumnSet::Liberty => "Liberty",
        ColumnSet::Mitaka => "Mitaka or later",
    };
    match revision {
        None => format!("{by_columns}, by its columns"),
        Some(Value::Text(revision)) => match ALEMBIC.iter().find(|(known, _)| known == revision) {
            Some((_, release)) => format!("{release} (revision {revision})"),
            None => format!("{by_columns}, by its columns (unknown revision {revision})"),
        },
        Some(Value::Integer(number)) => match MIGRATE.iter().rev().find(|(last, _)| last <= number) {
            Some((_, release)) => format!("{release} (migration {number})"),
            None => format!("{by_columns}, by its columns (migration {number})"),
        },
        Some(Value::Null | Value::Unsupported(_)) => format!("{by_columns}, by its columns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(drop: &[&str]) -> HashMap<String, BTreeSet<String>> {
        let mut found: HashMap<String, BTreeSet<String>> = HashMap::new();
        let extra = LIBERTY.iter().chain(MITAKA).map(|column| ("backups", *column)).chain([("volumes", "previous_status")]);
        let needed = NEEDED.iter().flat_map(|(table, columns)| columns.iter().map(move |column| (*table, *column)));
        for (table, column) in needed.chain(extra) {
            if !drop.contains(&column) {
                found.entry(table.to_owned()).or_default().insert(column.to_owned());
            }
        }
        found
    }

    #[test]
    fn the_column_set_is_the_newest_complete_one() {
        assert_eq!(column_set(&tables(&[])), Ok(ColumnSet::Mitaka));
        assert_eq!(column_set(&tables(&["snapshot_id"])), Ok(ColumnSet::Liberty));
        assert_eq!(column_set(&tables(&["restore_volume_id", "snapshot_id"])), Ok(ColumnSet::Liberty));
        assert_eq!(column_set(&tables(&["previous_status"])), Ok(ColumnSet::Juno));
        assert_eq!(column_set(&tables(&["temp_volume_id"])), Ok(ColumnSet::Juno));
    }

    #[test]
    fn the_missing_table_or_column_is_named() {
        assert!(column_set(&HashMap::new()).is_err_and(|problem| problem.contains("table backups is missing")));
        assert!(column_set(&tables(&["object_count"])).is_err_and(|problem| problem.contains("backups.object_count")));
    }

    #[test]
    fn releases_have_names() {
        let of = |revision: Value| release(Some(&revision), ColumnSet::Mitaka);
        assert_eq!(of("9c74c1c6971f".into()), "2024.1 to 2026.2 (revision 9c74c1c6971f)");
        assert_eq!(of(Value::Integer(117)), "Queens (migration 117)");
        assert_eq!(of(Value::Integer(122)), "Queens (migration 122)");
        assert_eq!(of("ffff".into()), "Mitaka or later, by its columns (unknown revision ffff)");
        assert_eq!(release(None, ColumnSet::Juno), "Icehouse to Kilo, by its columns");
    }
}
