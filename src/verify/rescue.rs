//! Lost backups: finished on the storage, without a live row. What Cinder needs to import them again. Pure.
//!
//! A record is what `cinder backup-export` prints: the columns of the row as JSON in Base64. An import writes all of them into a new row, apart
//! from those that it sets itself. A column that the storage does not show is left out of the record, so that it is NULL in the new row.
//!
//! Source: `cinder/objects/backup.py` (`encode_record`), `cinder/backup/api.py` (`_get_import_backup`) and `cinder/backup/manager.py`
//! (`import_record`).

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::Serialize;
use serde_json::json;

use crate::domain::time::{moment, parse, stamp};
use crate::domain::{CheckVerdict, Driver, Level};
use crate::format::metadata::VolumeFacts;
use crate::format::names::Prefix;

/// The columns that the storage never shows. The import sets owner, host, zone and times itself; the others are NULL afterwards.
pub const NEVER_KNOWN: [&str; 9] =
    ["availability_zone", "fail_reason", "host", "metadata", "project_id", "restore_volume_id", "snapshot_id", "updated_at", "user_id"];
/// The key of the backup. It is a copy of the key of the volume, with another id that only the row has.
const KEY: &str = "encryption_key_id";
/// When the data was on the volume. That of a snapshot is older than the backup. Without it, Cinder fails to find the parent of an increment.
const DATA_TIMESTAMP: &str = "data_timestamp";

/// Where the parent of an increment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Parent {
    /// It is a lost backup, too.
    Lost,
    /// Its row is live.
    Live,
    /// Neither.
    Missing,
}

/// A lost backup, with everything that its record needs.
#[derive(Debug, Clone, Serialize)]
pub struct LostBackup {
    /// Its id. Hostile text, like all texts.
    pub id: String,
    /// Its name when it was made.
    pub name: Option<String>,
    /// Its description when it was made.
    pub description: Option<String>,
    /// The driver of the storage.
    pub driver: Driver,
    /// The directory, container or bucket that was walked.
    pub location: String,
    /// The directory, container or bucket of its objects.
    pub container: Option<String>,
    /// The prefix of its objects.
    pub service_metadata: String,
    /// The volume.
    pub volume_id: Option<String>,
    /// The owner of the volume, or, where accounts belong to projects, that of the account.
    pub project_id: Option<String>,
    /// The type of the volume.
    pub volume_type_id: Option<String>,
    /// Whether the volume was encrypted; `None` if the side files do not show it.
    pub encrypted: Option<bool>,
    /// The parent of an increment.
    pub parent_id: Option<String>,
    /// Where the parent is.
    pub parent: Option<Parent>,
    /// Increments on it with live rows.
    pub live_increments: u64,
    /// The size of the volume in GiB.
    pub size: Option<i64>,
    /// When it was made, RFC 3339.
    pub created_at: Option<String>,
    /// What the check found; `None` if it was stopped before.
    pub verdict: Option<CheckVerdict>,
    /// The deepest level at which it is known to be intact.
    pub level_reached: Option<Level>,
    /// The number of its objects.
    pub object_count: Option<i64>,
    /// Why it cannot be imported.
    pub obstacles: Vec<String>,
    /// The columns that are not in the record.
    pub unknown: Vec<&'static str>,
    /// The columns that are in the record, but not as such in the side files.
    pub derived: Vec<&'static str>,
    /// The first argument of `cinder backup-import`; `None` if it cannot be imported.
    pub backup_service: Option<String>,
    /// The second argument.
    pub backup_url: Option<String>,
}

impl LostBackup {
    /// Takes the size from the description of the volume, otherwise from the digests.
    pub fn set_volume(&mut self, volume: Option<VolumeFacts>, size_by_digests: Option<i64>) {
        let stated = volume.as_ref().and_then(|volume| volume.size).filter(|size| *size > 0);
        self.size = stated.or(size_by_digests);
        if stated.is_none() {
            self.derived.push("size");
        }
        self.encrypted = volume.as_ref().map(|volume| volume.encryption_key_id.is_some());
        if self.encrypted != Some(false) {
            self.unknown.push(KEY);
        }
        if let Some(volume) = volume {
            self.project_id = self.project_id.take().or(volume.project_id);
            self.volume_type_id = volume.volume_type_id;
        }
    }

    /// Takes the time from the side file, otherwise from the prefix.
    pub fn set_time(&mut self, created_at: Option<&str>) {
        let utc = |time: DateTime| Offset::UTC.to_timestamp(time).ok();
        let stated = created_at.and_then(|text| moment(text).or_else(|| utc(parse(text)?)));
        let began = || utc(DateTime::strptime("%Y%m%d%H%M%S", Prefix::parse(&self.service_metadata)?.timestamp).ok()?);
        self.created_at = stated.or_else(began).map(stamp);
        self.derived.extend(stated.is_none().then_some("created_at"));
    }

    /// What a person must know before the import: the columns that are unknown or derived for this backup and not for every one.
    pub fn remarkable(&self) -> impl Iterator<Item = &'static str> {
        let all = self.unknown.iter().chain(&self.derived).copied();
        all.filter(|column| *column != DATA_TIMESTAMP && !NEVER_KNOWN.contains(column))
    }

    /// Whether it can be imported.
    pub fn is_importable(&self) -> bool {
        self.backup_url.is_some()
    }

    /// Writes the record, with the number of increments that will have rows.
    fn add_record(&mut self, service: String, increments: u64) {
        self.derived.push(DATA_TIMESTAMP);
        // Cinder writes times without fractions.
        let time = self.created_at.as_deref().and_then(moment).map(|time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let mut record = json!({
            "id": self.id,
            "volume_id": self.volume_id,
            "container": self.container,
            "service_metadata": self.service_metadata,
            "service": service,
            "parent_id": self.parent_id,
            "size": self.size,
            "object_count": self.object_count,
            "display_name": self.name,
            "display_description": self.description,
            "num_dependent_backups": increments,
            "created_at": time,
            "data_timestamp": time,
            // An export refuses any other status, and the import ends with it.
            "status": "available",
            "deleted": false,
            "deleted_at": null,
            "temp_volume_id": null,
            "temp_snapshot_id": null,
            "driver_info": {},
        });
        if let Some(columns) = record.as_object_mut()
            && self.encrypted == Some(false)
        {
            columns.insert(KEY.to_owned(), json!(null));
        }
        self.backup_service = Some(service);
        self.backup_url = Some(STANDARD.encode(record.to_string()));
    }
}

/// Puts lost backups in the order of their import: by project and volume, and each increment after its parent. `depth` is the number of
/// ancestors of a backup, and `service` the driver as Cinder names it. Adds a record to each that has no obstacle.
pub fn arrange(backups: &mut [LostBackup], depth: &HashMap<String, usize>, service: &dyn Fn(Driver) -> String) {
    // A volume may have been transferred to another project, and its chains stay together.
    let mut owners: HashMap<Option<String>, Option<String>> = HashMap::new();
    for backup in backups.iter() {
        let owner = owners.entry(backup.volume_id.clone()).or_default();
        *owner = owner.take().max(backup.project_id.clone());
    }
    backups.sort_by_cached_key(|backup| {
        let (owner, depth) = (owners.get(&backup.volume_id).cloned(), depth.get(&backup.id).copied());
        (owner, backup.volume_id.clone(), depth, backup.created_at.clone(), backup.id.clone())
    });
    // Whether each can be imported, in this order.
    let mut importable: BTreeMap<String, bool> = BTreeMap::new();
    for backup in backups.iter_mut() {
        if let (Some(Parent::Lost), Some(parent)) = (backup.parent, &backup.parent_id)
            && importable.get(parent) != Some(&true)
            && backup.obstacles.is_empty()
        {
            backup.obstacles.push(format!("backup {parent}, which it is based on, cannot be imported"));
        }
        importable.insert(backup.id.clone(), backup.obstacles.is_empty());
    }
    let mut increments: HashMap<String, u64> = HashMap::new();
    for parent in backups.iter().filter(|backup| backup.obstacles.is_empty()).filter_map(|backup| backup.parent_id.clone()) {
        *increments.entry(parent).or_default() += 1;
    }
    for backup in backups.iter_mut().filter(|backup| backup.obstacles.is_empty()) {
        let lost = increments.get(&backup.id).copied().unwrap_or_default();
        backup.add_record(service(backup.driver), backup.live_increments + lost);
    }
}

/// How many lost backups there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// With a record.
    pub importable: usize,
    /// Damaged, so without one.
    pub damaged: usize,
    /// Neither: not verified, or with another obstacle.
    pub refused: usize,
}

impl Summary {
    /// Counts them.
    pub fn of(backups: &[LostBackup]) -> Self {
        let mut summary = Self::default();
        for backup in backups {
            *match backup.verdict {
                _ if backup.is_importable() => &mut summary.importable,
                Some(verdict) if verdict.is_damage() => &mut summary.damaged,
                _ => &mut summary.refused,
            } += 1;
        }
        summary
    }
}
