//! The names of the objects of a chunked backup.
//!
//! Source: `cinder/backup/chunkeddriver.py` (`_backup_chunk`, `_metadata_filename`, `_sha256_filename`) and the drivers'
//! `_generate_object_name_prefix`, unchanged since Havana.

/// Returns the name of the list of objects, which is written last.
pub fn metadata(prefix: &str) -> String {
    format!("{prefix}_metadata")
}

/// Returns the name of the list of digests of the volume, which is written last but one.
pub fn sha256file(prefix: &str) -> String {
    format!("{prefix}_sha256file")
}

/// Returns the name of a numbered object, from 1.
pub fn data(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:05}")
}

/// The role of an object in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectRole {
    /// A part of the volume, with its number from 1.
    Data(u64),
    /// The list of objects.
    Metadata,
    /// The list of digests of the volume.
    Sha256File,
    /// An object of another backup, or a name that Cinder does not use.
    Foreign,
}

/// Returns the role of the object `name` in the backup with this prefix.
pub fn role(prefix: &str, name: &str) -> ObjectRole {
    match name.strip_prefix(prefix) {
        Some("_metadata") => ObjectRole::Metadata,
        Some("_sha256file") => ObjectRole::Sha256File,
        Some(rest) => rest.strip_prefix('-').and_then(number).map_or(ObjectRole::Foreign, ObjectRole::Data),
        None => ObjectRole::Foreign,
    }
}

/// Splits the name of an object into the prefix of its backup and its role; `None` for a name that Cinder does not use.
pub fn split(name: &str) -> Option<(&str, ObjectRole)> {
    let prefix = name.get(..name.rfind(['-', '_'])?)?;
    Some((prefix, role(prefix, name))).filter(|(_, role)| *role != ObjectRole::Foreign)
}

/// Parses a number in the format `%05d`, from 1.
fn number(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let padded_right = digits.len() == 5 || (digits.len() > 5 && !digits.starts_with('0'));
    if !plain || !padded_right {
        return None;
    }
    digits.parse().ok().filter(|number| *number > 0)
}

/// The parts of a prefix (`backups.service_metadata`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The volume.
    pub volume_id: String,
    /// The begin of the backup, by the clock of cinder-backup, in UTC: `YYYYmmddHHMMSS`.
    pub timestamp: String,
    /// The availability zone of cinder-backup, which the posix family omits.
    pub az: Option<String>,
    /// The backup.
    pub backup_id: String,
}

impl Prefix {
    /// Parses `volume_<volume>_<timestamp>_backup_<backup>` (posix, nfs, glusterfs) and
    /// `volume_<volume>/<timestamp>/az_<az>_backup_<backup>` (swift, s3, gcs); `None` for anything else.
    pub fn parse(prefix: &str) -> Option<Self> {
        let (head, backup_id) = prefix.strip_prefix("volume_")?.rsplit_once("_backup_")?;
        let (volume_id, timestamp, az) = match head.split_once('/') {
            Some((volume_id, rest)) => {
                let (timestamp, rest) = rest.split_once('/')?;
                (volume_id, timestamp, Some(rest.strip_prefix("az_")?.to_owned()))
            }
            None => {
                let (volume_id, timestamp) = head.rsplit_once('_')?;
                (volume_id, timestamp, None)
            }
        };
        let is_id = |id: &str| !id.is_empty() && !id.contains('/');
        let is_time = timestamp.len() == 14 && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        (is_id(volume_id) && is_id(backup_id) && is_time).then(|| Self {
            volume_id: volume_id.to_owned(),
            timestamp: timestamp.to_owned(),
            az,
            backup_id: backup_id.to_owned(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const POSIX: &str = "volume_1b4f3b56-5a3b-4ad2-8d4b-2c9a4f7f1a10_20261122101112_backup_9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e6f";
    const SWIFT: &str = "volume_1b4f3b56-5a3b-4ad2-8d4b-2c9a4f7f1a10/20261122101112/az_nova_backup_9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e6f";

    #[test]
    fn names_have_their_roles() {
        for prefix in [POSIX, SWIFT, "", "x-00001"] {
            assert_eq!(role(prefix, &metadata(prefix)), ObjectRole::Metadata);
            assert_eq!(role(prefix, &sha256file(prefix)), ObjectRole::Sha256File);
            for number in [1, 42, 99_999, 100_000, u64::MAX] {
                assert_eq!(role(prefix, &data(prefix, number)), ObjectRole::Data(number));
            }
        }
        assert_eq!(split(&metadata(SWIFT)), Some((SWIFT, ObjectRole::Metadata)));
        assert_eq!(split(&sha256file(POSIX)), Some((POSIX, ObjectRole::Sha256File)));
        assert_eq!(split(&data(POSIX, 100_000)), Some((POSIX, ObjectRole::Data(100_000))));
        assert_eq!(data("p", 7), "p-00007");
        assert_eq!(data("p", 1_234_567), "p-1234567");
    }

    #[test]
    fn names_that_cinder_does_not_use_are_foreign() {
        for rest in [
            "",
            "-",
            "-1",
            "-0001",
            "-00000",
            "-000001",
            "-012345",
            "-00001 ",
            "-0000１",
            "-+0001",
            "--0001",
            "-00001.tmp",
            "_metadata2",
            "_metadata/",
            "_Metadata",
            "_sha256file\n",
            "-18446744073709551616",
            "-1e100",
            "00001",
        ] {
            assert_eq!(role(POSIX, &format!("{POSIX}{rest}")), ObjectRole::Foreign, "{rest:?}");
            assert_ne!(split(&format!("{POSIX}{rest}")).map(|(prefix, _)| prefix), Some(POSIX), "{rest:?}");
        }
        assert_eq!(role(POSIX, &data(SWIFT, 1)), ObjectRole::Foreign);
        assert_eq!(role("a", ""), ObjectRole::Foreign);
    }

    #[test]
    fn prefixes_are_parsed() {
        let posix = Prefix::parse(POSIX).unwrap();
        assert_eq!(posix.volume_id, "1b4f3b56-5a3b-4ad2-8d4b-2c9a4f7f1a10");
        assert_eq!(posix.timestamp, "20261122101112");
        assert_eq!(posix.az, None);
        assert_eq!(posix.backup_id, "9c1d1f39-1d2a-4b1f-9d53-1f2b3c4d5e6f");
        assert_eq!(Prefix::parse(SWIFT).unwrap(), Prefix { az: Some("nova".to_owned()), ..posix });
        let odd = Prefix::parse("volume_v/20261122101112/az_my_backup_zone/1_backup_b").unwrap();
        assert_eq!(odd.az.as_deref(), Some("my_backup_zone/1"));
        for wrong in [
            "",
            "volume_",
            "volume_v",
            "volume_v_backup_b",
            "volume_v_2026112210111_backup_b",
            "volume__20261122101112_backup_b",
            "volume_v_20261122101112_backup_",
            "volume_v/20261122101112/nova_backup_b",
            "volume_v/20261122101112_backup_b",
            "volume_v_20261122101112_backup_../../b",
            "backup_v_20261122101112_backup_b",
        ] {
            assert_eq!(Prefix::parse(wrong), None, "{wrong}");
        }
    }
}
