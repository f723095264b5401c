//! The names that Cinder's driver gives to the images, snapshots and metadata object of a backup. Pure.
//!
//! Source: `cinder/backup/drivers/ceph.py` of 29.0.0 (`_get_backup_base_name`, `backup_snapshot_name_pattern`,
//! `VolumeMetadataBackup.name`) and its history.

use std::sync::Arc;

use serde::Deserialize;

use crate::domain::id::{is_uuid, same};
use crate::domain::status::AVAILABLE;
use crate::domain::{Backup, Problem, ProblemCode, StorageRow};

/// What a backup can be according to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A snapshot on a base image, sent there by `rbd import-diff`.
    Snapshot,
    /// A full copy in an image.
    Copy,
    /// Either: only the storage shows whether the volume was an RBD image.
    Either,
}

/// An image that a backup may be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub name: String,
    /// It is this backup's only if it has a snapshot of it, as other backups of the volume use the name, too.
    pub by_snapshot: bool,
}

/// Where to look for a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupNames {
    pub shape: Shape,
    /// Images, the one that Cinder's driver would use first.
    pub images: Vec<Candidate>,
    /// The object that holds the volume's metadata.
    pub meta: String,
}

/// Works out the names: from `base` in the row's service_metadata, else from that of its ancestors, else from the ids.
///
/// # Errors
/// What is wrong with the row, if the names cannot be worked out.
pub(super) fn of(backup: &Backup, ancestors: &[Arc<Backup>]) -> Result<BackupNames, Problem> {
    let Some(volume) = backup.volume_id.as_deref() else {
        return Err(Problem::general(ProblemCode::VolumeUnknown, "the row names no volume, so the name of the image is not known"));
    };
    let own = format!("volume-{volume}.backup.{}", backup.id);
    // One name for all backups of the volume: in the releases before service_metadata, and for copies of a snapshot.
    let shared = format!("volume-{volume}.backup.base");
    let mut images: Vec<Candidate> = Vec::new();
    let mut add = |name: String, by_snapshot: bool| {
        if !images.iter().any(|image| image.name == name) {
            images.push(Candidate { name, by_snapshot });
        }
    };
    let shape = if let Some(base) = base(backup)? {
        add(base, false);
        Shape::Snapshot
    } else if backup.snapshot_id.is_some() {
        // Whatever the parent is, the driver makes a full copy of a snapshot.
        add(shared, false);
        add(own, false);
        Shape::Copy
    } else if backup.parent_id.is_some() {
        for ancestor in ancestors {
            // This backup's data can be found even if the row of a parent is wrong.
            if let Ok(Some(base)) = self::base(ancestor) {
                add(base, false);
            }
        }
        // If no row of the chain has a name: that of the oldest, if the chain is complete, and the old name.
        if let Some(oldest) = ancestors.last().filter(|oldest| oldest.parent_id.is_none()) {
            add(format!("volume-{volume}.backup.{}", oldest.id), false);
        }
        add(shared, false);
        Shape::Snapshot
    } else {
        add(own, false);
        add(shared, true);
        Shape::Either
    };
    Ok(BackupNames { shape, images, meta: meta(&backup.id) })
}

/// The metadata object of a backup.
pub(crate) fn meta(backup: &str) -> String {
    format!("backup.{backup}.meta")
}

/// The base image that a row names, if any.
fn base(backup: &Backup) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct Metadata {
        base: String,
    }
    let Some(text) = backup.service_metadata.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    match serde_json::from_str::<Metadata>(text) {
        Ok(Metadata { base }) if is_image_name(&base) => Ok(Some(base)),
        Ok(Metadata { base }) => Err(Problem::general(
            ProblemCode::ServiceMetadataInvalid,
            format!("service_metadata names {base:?}, which is not the name of a backup image"),
        )),
        Err(error) => Err(Problem::general(
            ProblemCode::ServiceMetadataInvalid,
            format!("service_metadata is not the driver's JSON with a \"base\": {error}"),
        )),
    }
}

/// Whether the driver can have given this name to an image.
fn is_image_name(name: &str) -> bool {
    name.starts_with("volume-") && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What the driver writes to `backups.service_metadata` when a backup is finished, byte for byte.
pub(super) fn service_metadata(base: &str) -> String {
    format!("{{\"base\": \"{base}\"}}")
}

/// Whether an image is one of Cinder's backups.
pub(super) fn is_image(name: &str) -> bool {
    name.starts_with("volume-") && name.contains(".backup.")
}

/// Whether an object is the metadata of one of Cinder's backups.
pub(super) fn is_meta(name: &str) -> bool {
    name.strip_prefix("backup.").is_some_and(|rest| rest.ends_with(".meta"))
}

/// When a backup began, according to the name of its snapshot: seconds since 1970, by the clock of the host that made it.
pub(super) fn begun(snapshot: &str) -> Option<f64> {
    snapshot.rsplit_once(".snap.")?.1.parse().ok().filter(|time: &f64| time.is_finite())
}

/// The backup whose end a snapshot marks: `backup.<id>.snap.<time>`; `None` for other snapshots.
pub(crate) fn backup_of_snapshot(name: &str) -> Option<&str> {
    let (id, time) = name.strip_prefix("backup.")?.split_once(".snap.")?;
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'-');
    (is_id && !time.is_empty()).then_some(id)
}

/// The volume and the backup in the name of an image of backups; no backup for the image that all backups of a volume share.
pub(crate) fn owner_of_image(image: &str) -> Option<(&str, Option<&str>)> {
    let (volume, backup) = image.strip_prefix("volume-")?.split_once(".backup.")?;
    let backup = Some(backup).filter(|backup| *backup != "base");
    (is_uuid(volume) && backup.is_none_or(is_uuid)).then_some((volume, backup))
}

/// The volume in the name of its image, if Cinder's default name is in use.
pub(crate) fn volume_of_image(image: &str) -> Option<&str> {
    image.strip_prefix("volume-").filter(|volume| is_uuid(volume))
}

/// The backup in the name of its metadata object.
pub(crate) fn backup_of_meta(name: &str) -> Option<&str> {
    name.strip_prefix("backup.")?.strip_suffix(".meta").filter(|backup| is_uuid(backup))
}

/// The volumes whose images a live backup may need: its own volume, and that of the base that its row names.
pub(crate) fn volumes_of(row: &StorageRow) -> [Option<String>; 2] {
    let base = base(&Backup { service_metadata: row.service_metadata.clone(), ..Backup::default() }).ok().flatten();
    let of_base = base.as_deref().and_then(owner_of_image).map(|(volume, _)| volume.to_owned());
    [row.volume_id.as_ref().map(|volume| volume.to_ascii_lowercase()), of_base]
}

/// Whether a live backup may need this image of this volume, according to its row. A snapshot of the backup on the image shows it, too.
pub(crate) fn may_need_image(row: &StorageRow, volume: &str, image: &str) -> bool {
    let backup = Backup { service_metadata: row.service_metadata.clone(), ..Backup::default() };
    match base(&backup) {
        Ok(Some(base)) => base == image,
        // A full backup, or an increment of an old release: it is in its own image or in the shared one.
        Ok(None) if row.status.as_deref() == Some(AVAILABLE) => {
            let is_of_volume = row.volume_id.as_deref().is_some_and(|of| same(of, volume));
            is_of_volume && owner_of_image(image).is_none_or(|(_, own)| own.is_none_or(|own| same(own, &row.id)))
        }
        // The row does not say which image it uses.
        _ => row.volume_id.as_deref().is_none_or(|of| same(of, volume)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    fn row(id: &str) -> Backup {
        Backup { id: id.to_owned(), volume_id: Some("V".to_owned()), ..Backup::default() }
    }

    fn candidates(names: &BackupNames) -> Vec<(&str, bool)> {
        names.images.iter().map(|image| (image.name.as_str(), image.by_snapshot)).collect()
    }

    #[test]
    fn a_full_backup_is_looked_for_by_its_own_id_and_then_by_the_old_name() {
        let names = of(&row("B"), &[]).unwrap();
        assert_eq!(names.shape, Shape::Either);
        assert_eq!(candidates(&names), [("volume-V.backup.B", false), ("volume-V.backup.base", true)]);
        assert_eq!(names.meta, "backup.B.meta");
    }

    #[test]
    fn service_metadata_wins() {
        let backup =
            Backup { service_metadata: Some("{\"base\": \"volume-V.backup.A\"}".to_owned()), parent_id: Some("P".to_owned()), ..row("B") };
        let names = of(&backup, &[row("P").into()]).unwrap();
        assert_eq!((names.shape, candidates(&names)), (Shape::Snapshot, vec![("volume-V.backup.A", false)]));
        assert_eq!(service_metadata("volume-V.backup.A"), backup.service_metadata.unwrap());
        // Python takes an empty text for none.
        let backup = Backup { service_metadata: Some(String::new()), ..row("B") };
        assert_eq!(of(&backup, &[]).unwrap().shape, Shape::Either);
    }

    #[test]
    fn service_metadata_that_is_none_is_a_problem_and_never_reaches_a_command() {
        for text in [
            "volume_x/2026/az_nova_backup_B",
            "{}",
            "{\"base\": 1}",
            "[]",
            "{\"base\": \"\"}",
            "{\"base\": \"--help\"}",
            "{\"base\": \"volume-x/../other\"}",
            "{\"base\": \"volume-x@snap\"}",
            "{\"base\": \"volume-x\\n\"}",
        ] {
            let backup = Backup { service_metadata: Some(text.to_owned()), ..row("B") };
            assert_eq!(of(&backup, &[]).unwrap_err().code.as_str(), "service-metadata-invalid", "{text}");
        }
    }

    #[test]
    fn an_increment_is_looked_for_where_its_parents_are() {
        let child = Backup { parent_id: Some("P".to_owned()), ..row("B") };
        let parent = |metadata: Option<&str>, parent: Option<&str>, id: &str| {
            Arc::new(Backup { service_metadata: metadata.map(str::to_owned), parent_id: parent.map(str::to_owned), ..row(id) })
        };
        let known = "{\"base\": \"volume-V.backup.F\"}";
        let names = of(&child, &[parent(Some(known), Some("F"), "P"), parent(Some(known), None, "F")]).unwrap();
        assert_eq!(
            (names.shape, candidates(&names)),
            (Shape::Snapshot, vec![("volume-V.backup.F", false), ("volume-V.backup.base", false)])
        );
        // The parent's row lost it, its own parent's has it.
        let names = of(&child, &[parent(None, Some("F"), "P"), parent(Some(known), None, "F")]).unwrap();
        assert_eq!(candidates(&names)[0].0, "volume-V.backup.F");
        // Nobody has it.
        let names = of(&child, &[parent(None, Some("F"), "P"), parent(None, None, "F")]).unwrap();
        assert_eq!(candidates(&names), [("volume-V.backup.F", false), ("volume-V.backup.base", false)]);
        // The chain is cut: the oldest known is not the first.
        let names = of(&child, &[parent(None, Some("F"), "P")]).unwrap();
        assert_eq!(candidates(&names), [("volume-V.backup.base", false)]);
        assert_eq!(candidates(&of(&child, &[]).unwrap()), [("volume-V.backup.base", false)]);
        // A parent's row that is broken does not hide this one's data.
        assert_eq!(candidates(&of(&child, &[parent(Some("?"), None, "F")]).unwrap())[0].0, "volume-V.backup.F");
    }

    #[test]
    fn a_copy_of_a_snapshot_has_the_shared_name_whatever_its_parent() {
        let backup = Backup { snapshot_id: Some("S".to_owned()), parent_id: Some("P".to_owned()), ..row("B") };
        let names = of(&backup, &[row("P").into()]).unwrap();
        assert_eq!((names.shape, candidates(&names)), (Shape::Copy, vec![("volume-V.backup.base", false), ("volume-V.backup.B", false)]));
    }

    #[test]
    fn a_row_without_a_volume_is_a_problem() {
        assert_eq!(of(&Backup { volume_id: None, ..row("B") }, &[]).unwrap_err().code.as_str(), "volume-unknown");
    }

    #[test]
    fn images_and_metadata_have_owners_only_if_the_driver_can_have_named_them() {
        let (v, b) = ("1b4f3b56-5a3b-4ad2-8d4b-2c9a4f7f1a10", "9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e6f");
        assert_eq!(owner_of_image(&format!("volume-{v}.backup.{b}")), Some((v, Some(b))));
        assert_eq!(owner_of_image(&format!("volume-{v}.backup.base")), Some((v, None)));
        assert_eq!(backup_of_meta(&format!("backup.{b}.meta")), Some(b));
        for other in
            [format!("volume-{v}"), format!("volume-{v}.backup.x"), format!("volume-V.backup.{b}"), format!("volume-{v}.backup.{b}.x")]
        {
            assert_eq!(owner_of_image(&other), None, "{other}");
        }
        assert_eq!(backup_of_meta("backup.x.meta"), None);
        assert_eq!((volume_of_image(&format!("volume-{v}")), volume_of_image(&format!("volume-{v}.backup.{b}"))), (Some(v), None));
    }

    #[test]
    fn an_image_is_needed_by_the_backups_that_may_be_in_it() {
        let v = "1b4f3b56-5a3b-4ad2-8d4b-2c9a4f7f1a10";
        let [a, b] = ["9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e6f", "8c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e6f"];
        let image = |of: &str| format!("volume-{v}.backup.{of}");
        let row = |id: &str, status: &str, metadata: Option<String>| StorageRow {
            id: id.to_owned(),
            status: Some(status.to_owned()),
            volume_id: Some(v.to_owned()),
            service_metadata: metadata,
            ..StorageRow::default()
        };
        let in_a = row(b, "available", Some(service_metadata(&image(a))));
        assert!(may_need_image(&in_a, v, &image(a)) && !may_need_image(&in_a, v, &image(b)));
        let copy = row(b, "available", None);
        assert!(may_need_image(&copy, v, &image(b)) && may_need_image(&copy, v, &image("base")) && !may_need_image(&copy, v, &image(a)));
        for unknown in [row(b, "creating", None), row(b, "error", None), row(b, "available", Some("?".to_owned()))] {
            assert!(may_need_image(&unknown, v, &image(a)), "{unknown:?}");
            assert!(!may_need_image(&unknown, b, &image(a)), "another volume");
        }
    }

    #[test]
    fn snapshots_are_known_as_the_driver_knows_them() {
        assert_eq!(backup_of_snapshot("backup.0a-1.snap.1763849735.12"), Some("0a-1"));
        for other in ["backup..snap.1", "backup.A.snap.1", "backup.a.snap.", "backup.a", "x.backup.a.snap.1", "snapshot-1", ""] {
            assert_eq!(backup_of_snapshot(other), None, "{other}");
        }
    }
}
