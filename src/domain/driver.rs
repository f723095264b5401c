//! Cinder's backup drivers, as `backups.service` names them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backup driver of Cinder whose backups this program can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A directory.
    Posix,
    /// A mounted NFS share.
    Nfs,
    /// A mounted GlusterFS volume.
    GlusterFs,
    /// OpenStack Swift.
    Swift,
    /// S3 and compatibles.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// A pool of a Ceph cluster.
    Ceph,
}

impl Driver {
    /// Whether it keeps its containers as directories below one mount.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Posix | Self::Nfs | Self::GlusterFs)
    }

    /// The driver that `backups.service` names: by today's class path, by the module path of rows older than 2018, or by Juno's
    /// `cinder.backup.services.*`. `None` for all others, such as a vendor's class.
    ///
    /// Source: `cinder/backup/manager.py` (`mapper`, `setup_backup_backend`) and the drivers' history up to 29.0.0.
    pub fn of_service(service: &str) -> Option<Self> {
        let rest = service.strip_prefix("cinder.backup.drivers.").or_else(|| service.strip_prefix("cinder.backup.services."))?;
        let (module, class) = rest.split_once('.').map_or((rest, None), |(module, class)| (module, Some(class)));
        let (driver, its_class) = match module {
            "posix" => (Self::Posix, "PosixBackupDriver"),
            "nfs" => (Self::Nfs, "NFSBackupDriver"),
            "glusterfs" => (Self::GlusterFs, "GlusterfsBackupDriver"),
            "swift" => (Self::Swift, "SwiftBackupDriver"),
            "s3" => (Self::S3, "S3BackupDriver"),
            "gcs" | "google" => (Self::Gcs, "GoogleBackupDriver"),
            "ceph" => (Self::Ceph, "CephBackupDriver"),
            _ => return None,
        };
        class.is_none_or(|class| class == its_class).then_some(driver)
    }

    /// The class path that Cinder itself writes into `backups.service` since Queens.
    pub fn class_path(self) -> &'static str {
        match self {
            Self::Posix => "cinder.backup.drivers.posix.PosixBackupDriver",
            Self::Nfs => "cinder.backup.drivers.nfs.NFSBackupDriver",
            Self::GlusterFs => "cinder.backup.drivers.glusterfs.GlusterfsBackupDriver",
            Self::Swift => "cinder.backup.drivers.swift.SwiftBackupDriver",
            Self::S3 => "cinder.backup.drivers.s3.S3BackupDriver",
            Self::Gcs => "cinder.backup.drivers.gcs.GoogleBackupDriver",
            Self::Ceph => "cinder.backup.drivers.ceph.CephBackupDriver",
        }
    }

    /// Whether two values of `backups.service` name one driver.
    pub fn is_same(one: &str, other: &str) -> bool {
        one == other || Self::of_service(one).is_some_and(|driver| Self::of_service(other) == Some(driver))
    }

    /// Cinder's default for the size of an object, in bytes; `None` for Ceph, where a backup is an image.
    ///
    /// Source: `backup_file_size`, `backup_swift_object_size`, `backup_s3_object_size` and `backup_gcs_object_size` in
    /// `cinder/backup/drivers/*.py`.
    pub fn object_bytes(self) -> Option<u64> {
        match self {
            Self::Posix | Self::Nfs | Self::GlusterFs => Some(1_999_994_880),
            Self::Swift | Self::S3 | Self::Gcs => Some(52_428_800),
            Self::Ceph => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_driver_is_known() {
        for (service, driver) in [
            ("cinder.backup.drivers.posix.PosixBackupDriver", Some(Driver::Posix)),
            ("cinder.backup.drivers.posix", Some(Driver::Posix)),
            ("cinder.backup.drivers.nfs.NFSBackupDriver", Some(Driver::Nfs)),
            ("cinder.backup.drivers.nfs", Some(Driver::Nfs)),
            ("cinder.backup.drivers.glusterfs.GlusterfsBackupDriver", Some(Driver::GlusterFs)),
            ("cinder.backup.drivers.swift.SwiftBackupDriver", Some(Driver::Swift)),
            ("cinder.backup.drivers.swift", Some(Driver::Swift)),
            ("cinder.backup.services.swift", Some(Driver::Swift)),
            ("cinder.backup.services.ceph", Some(Driver::Ceph)),
            ("cinder.backup.drivers.ceph.CephBackupDriver", Some(Driver::Ceph)),
            ("cinder.backup.drivers.s3.S3BackupDriver", Some(Driver::S3)),
            ("cinder.backup.drivers.gcs.GoogleBackupDriver", Some(Driver::Gcs)),
            ("cinder.backup.drivers.google.GoogleBackupDriver", Some(Driver::Gcs)),
            ("cinder.backup.drivers.google", Some(Driver::Gcs)),
            ("cinder.backup.drivers.tsm.TSMBackupDriver", None),
            ("cinder.backup.drivers.swift.OurOwnDriver", None),
            ("vendor.backup.posix.PosixBackupDriver", None),
            ("cinder.backup.drivers.", None),
            ("swift", None),
            ("", None),
        ] {
            assert_eq!(Driver::of_service(service), driver, "{service}");
            assert!(driver.is_none_or(|driver| Driver::of_service(driver.class_path()) == Some(driver)), "{service}");
        }
    }
}
