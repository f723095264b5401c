//! Cinder's statuses, as its `cinder/objects/fields.py` spells them.

/// A backup that is being written.
pub const CREATING: &str = "creating";
/// A backup that can be restored, or a volume or snapshot that is free.
pub const AVAILABLE: &str = "available";
/// A backup that is being deleted.
pub const DELETING: &str = "deleting";
/// A backup that is being restored.
pub const RESTORING: &str = "restoring";
/// A backup or volume that cannot be used.
pub const ERROR: &str = "error";
/// A backup that no longer exists; its row is deleted, too.
pub const DELETED: &str = "deleted";
/// A backup whose deletion failed.
pub const ERROR_DELETING: &str = "error_deleting";
/// A volume or snapshot that a backup is being made of.
pub const BACKING_UP: &str = "backing-up";
/// A volume that a backup is being restored into.
pub const RESTORING_BACKUP: &str = "restoring-backup";
/// A volume whose restore was cut off: it holds neither the old nor the new content.
pub const ERROR_RESTORING: &str = "error_restoring";
/// A volume that a server uses.
pub const IN_USE: &str = "in-use";
/// The volume id that an import carries until it is finished.
pub const NO_VOLUME: &str = "00000000-0000-0000-0000-000000000000";

/// Whether the status says that no operation runs, and that none has to be repaired first.
pub fn is_at_rest(status: Option<&str>) -> bool {
    matches!(status, Some(AVAILABLE | ERROR))
}

/// Whether the status says that an operation is running. A status of NULL counts, as the last operation is not known.
pub fn is_active(status: Option<&str>) -> bool {
    matches!(status, Some(CREATING | RESTORING | DELETING) | None)
}
