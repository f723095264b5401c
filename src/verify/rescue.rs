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
use schemars::JsonSchema;
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

crate::domain::display_by_serde!(Parent);

/// The number of characters that fit in a text column of `backups`.
const TEXT: usize = 255;
/// The same for an id.
const ID: usize = 36;

/// Where the parent of an increment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Serialize, JsonSchema)]
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

    /// Refuses texts that are longer than their columns, or hold a NUL. A server that refuses them leaves the import in `creating`.
    pub fn refuse_unfit_texts(&mut self) {
        let texts = [
            ("name", self.name.as_ref(), TEXT),
            ("description", self.description.as_ref(), TEXT),
            ("container", self.container.as_ref(), TEXT),
            ("prefix", Some(&self.service_metadata), TEXT),
            ("volume id", self.volume_id.as_ref(), ID),
        ];
        let is_unfit = |text: &String, most| text.chars().count() > most || text.contains('\0');
        let unfit = texts.into_iter().filter(|(_, text, most)| text.is_some_and(|text| is_unfit(text, *most)));
        let unfit: Vec<String> = unfit.map(|(what, ..)| format!("its {what} does not fit the column of Cinder's database")).collect();
        self.obstacles.extend(unfit);
    }

    /// Takes the time from the side file, otherwise from the prefix.
    pub fn set_time(&mut self, created_at: Option<&str>) {
        let utc = |time: DateTime| Offset::UTC.to_timestamp(time).ok();
        let stated = created_at.and_then(|text| moment(text).or_else(|| utc(parse(text)?)));
        // Python has no year 0, and no volume was backed up before computers counted from here.
        let stated = stated.filter(|time| *time > Timestamp::UNIX_EPOCH);
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
        let why = match backup.parent {
            Some(Parent::Lost) if backup.parent_id.as_ref().and_then(|parent| importable.get(parent)) != Some(&true) => {
                "cannot be imported"
            }
            // The check may have found it under another spelling of its id, which Cinder would not.
            Some(Parent::Missing) => "has no live row and is not on the storage under this id",
            _ => "",
        };
        if let Some(parent) = backup.parent_id.as_ref().filter(|_| backup.obstacles.is_empty() && !why.is_empty()) {
            backup.obstacles.push(format!("backup {parent}, which it is based on, {why}"));
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn lost(id: usize, parent: Option<usize>, obstacle: bool) -> LostBackup {
        LostBackup {
            id: id.to_string(),
            name: None,
            description: None,
            driver: Driver::S3,
            location: String::new(),
            container: Some("c".to_owned()),
            service_metadata: "volume_v/20261122101112/az_nova_backup_b".to_owned(),
            volume_id: Some("v".to_owned()),
            // A transfer between the backups of a chain.
            project_id: Some(format!("p{}", id % 3)),
            volume_type_id: None,
            encrypted: Some(false),
            parent_id: parent.map(|parent| parent.to_string()),
            parent: parent.map(|_| Parent::Lost),
            live_increments: 1,
            size: Some(1),
            created_at: None,
            verdict: Some(CheckVerdict::Intact),
            level_reached: Some(Level::Deep),
            object_count: Some(7),
            obstacles: obstacle.then(|| "damaged".to_owned()).into_iter().collect(),
            unknown: NEVER_KNOWN.to_vec(),
            derived: Vec::new(),
            backup_service: None,
            backup_url: None,
        }
    }

    fn record(backup: &LostBackup) -> Option<Value> {
        Some(serde_json::from_slice(&STANDARD.decode(backup.backup_url.as_ref()?).unwrap()).unwrap())
    }

    proptest! {
        #[test]
        fn parents_come_first_and_nothing_on_a_backup_with_an_obstacle_is_importable(
            parents in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0..5_u8), 1..30)
        ) {
            // The parent of each is one of those before it.
            let parent = |number: usize, (index, has, _): &(prop::sample::Index, bool, u8)| (number > 0 && *has).then(|| index.index(number.max(1)));
            let of: Vec<Option<usize>> = parents.iter().enumerate().map(|(number, one)| parent(number, one)).collect();
            let mut backups: Vec<LostBackup> =
                parents.iter().enumerate().rev().map(|(number, (.., obstacle))| lost(number, of[number], *obstacle == 0)).collect();
            let chain = |number: usize| std::iter::successors(Some(number), |number| of[*number]);
            let depth = (0..of.len()).map(|number| (number.to_string(), chain(number).count() - 1)).collect();
            arrange(&mut backups, &depth, &|driver| driver.class_path().to_owned());
            let places: HashMap<usize, usize> = backups.iter().enumerate().map(|(place, one)| (one.id.parse().unwrap(), place)).collect();
            let is_right = |number: usize| chain(number).all(|number| parents[number].2 != 0);
            for backup in &backups {
                let number: usize = backup.id.parse().unwrap();
                prop_assert!(of[number].is_none_or(|parent| places[&parent] < places[&number]));
                prop_assert_eq!(backup.is_importable(), is_right(number));
                prop_assert_eq!(backup.obstacles.is_empty(), is_right(number));
                if let Some(record) = record(backup) {
                    let increments = (0..of.len()).filter(|other| of[*other] == Some(number) && is_right(*other)).count() as u64;
                    prop_assert_eq!(&record["num_dependent_backups"], &json!(increments + 1));
                    prop_assert!(NEVER_KNOWN.iter().all(|column| record.get(column).is_none()));
                }
            }
        }
    }

    #[test]
    fn times_are_those_of_the_row_or_of_the_prefix() {
        for (stated, right, is_derived) in [
            (Some("2026-11-22 15:21:43.393485+00:00"), "2026-11-22T15:21:43Z", false),
            (Some("2026-11-22 17:21:43+02:00"), "2026-11-22T15:21:43Z", false),
            (Some("2026-11-22 15:21:43"), "2026-11-22T15:21:43Z", false),
            (Some("None"), "2026-11-22T10:11:12Z", true),
            (Some("0000-01-01 00:00:00"), "2026-11-22T10:11:12Z", true),
            (Some("-000044-03-15T00:00:00Z"), "2026-11-22T10:11:12Z", true),
            (None, "2026-11-22T10:11:12Z", true),
        ] {
            let mut backup = lost(1, None, false);
            backup.set_time(stated);
            assert_eq!(backup.remarkable().collect::<Vec<_>>(), if is_derived { vec!["created_at"] } else { vec![] }, "{stated:?}");
            let mut backups = [backup];
            arrange(&mut backups, &HashMap::new(), &|_| String::new());
            let record = record(&backups[0]).unwrap();
            assert_eq!((record["created_at"].as_str(), record["data_timestamp"].as_str()), (Some(right), Some(right)), "{stated:?}");
        }
    }

    #[test]
    fn an_increment_whose_parent_is_nowhere_is_not_importable_whatever_its_check_found() {
        let mut backups = [LostBackup { parent: Some(Parent::Missing), ..lost(2, Some(1), false) }];
        arrange(&mut backups, &HashMap::new(), &|_| String::new());
        assert!(!backups[0].is_importable() && backups[0].obstacles.concat().contains("has no live row"), "{backups:?}");
    }

    #[test]
    fn a_text_that_the_database_would_refuse_is_an_obstacle() {
        let obstacles = |name: &str, description: &str| {
            let (name, description) = (Some(name.to_owned()), Some(description.to_owned()));
            let mut backup = LostBackup { name, description, ..lost(1, None, false) };
            backup.refuse_unfit_texts();
            backup.obstacles.concat()
        };
        assert_eq!(obstacles(&"ä".repeat(255), "a\nb"), "");
        assert_eq!(obstacles(&"a".repeat(256), ""), "its name does not fit the column of Cinder's database");
        assert_eq!(obstacles("", "\0"), "its description does not fit the column of Cinder's database");
    }

    #[test]
    fn a_key_is_stated_only_if_there_is_none() {
        let facts = |size, key: Option<&str>| VolumeFacts { size, encryption_key_id: key.map(str::to_owned), ..VolumeFacts::default() };
        for (volume, size, key, remarkable) in [
            (Some(facts(Some(2), None)), 2, Some(Value::Null), vec![]),
            (Some(facts(Some(2), Some("k"))), 2, None, vec!["encryption_key_id"]),
            (Some(facts(None, None)), 5, Some(Value::Null), vec!["size"]),
            (Some(facts(Some(0), None)), 5, Some(Value::Null), vec!["size"]),
            (None, 5, None, vec!["encryption_key_id", "size"]),
        ] {
            let mut backup = LostBackup { encrypted: None, size: None, ..lost(1, None, false) };
            backup.set_volume(volume.clone(), Some(5));
            assert_eq!((backup.size, backup.remarkable().collect()), (Some(size), remarkable), "{volume:?}");
            let mut backups = [backup];
            arrange(&mut backups, &HashMap::new(), &|_| String::new());
            assert_eq!(record(&backups[0]).unwrap().get("encryption_key_id"), key.as_ref(), "{volume:?}");
        }
    }
}
