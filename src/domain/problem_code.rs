//! The codes of problems and warnings that a check reports.

use super::code::codes;

const BACK_UP_AGAIN: &str =
    "A restore would fail or give wrong data. Restore from another backup, and make a new full backup of the volume.";
const FULL_BACKUP: &str = "Make the next backup of the volume a full one.";
const COMPARE_BYTES: &str = "Check with `--level restore --ceph-source-pool POOL`, which compares the bytes with the volume's snapshot.";
const CHECK_PARENT: &str = "Check the named backup itself: its own result lists what is wrong with it.";
const CHECK_AGAIN: &str = "Check again.";
const NOTHING: &str = "Nothing.";

codes! {
    /// What a check found: a problem decides the verdict, a warning does not change it.
    ProblemCode {
    AncestorMissing = "ancestor-missing",
        "Ceph: the image has no snapshot of a backup that this increment is based on. This backup can be restored, the other one cannot.",
        FULL_BACKUP;
    AncestorRemade = "ancestor-remade",
        "Ceph: the snapshot of a backup that this increment is based on was made again later. This backup can be restored, the other one cannot.",
        FULL_BACKUP;
    BaseDirty = "base-dirty",
        "Ceph: an increment that was cut off wrote to the image after its last backup. The next increment may keep some of those bytes.",
        FULL_BACKUP;
    BeyondVolume = "beyond-volume",
        "The objects reach far beyond the size of the volume in `backups.size`. Their data is not read.",
        "Compare `backups.size` with the volume. If the size is right, the metadata is wrong: use another backup.";
    BlockDiffers = "block-differs",
        "A block differs from the SHA-256 that the driver took when it read the volume.",
        BACK_UP_AGAIN;
    Cancelled = "cancelled",
        "The check was stopped before it had read everything.",
        "Check again. `--resume FILE` keeps the results that an earlier check has written.";
    ChangedMeanwhile = "changed-meanwhile",
        "Ceph: an image, snapshot or object disappeared during the check. `check merge`: a backup changed between the checks of its parts.",
        "Check again. If it happens again, find out who deletes backups.";
    CinderCannotRestore = "cinder-cannot-restore",
        "GCS: the backup, or one that it is based on, has more objects than Cinder's driver reads from a listing. The data is there, but Cinder cannot restore it.",
        "Use another backup. New backups have fewer objects with a larger `backup_gcs_object_size`.";
    ClockAhead = "clock-ahead",
        "The newest object was written in the future by the clock of the host that ran the check.",
        "Correct the clocks of the storage and of this host, and check again.";
    ClockBehind = "clock-behind",
        "The oldest object seems older than the backup itself: the clock of the storage is behind, and the objects are younger than they seem.",
        "Correct the clock of the storage. Until then, use a longer `--settle`.";
    ContainerMissing = "container-missing",
        "The container, bucket or directory of the backup does not exist.",
        "Make sure that the configuration names the right storage. If it does, the data is lost: make a new full backup.";
    Differs = "differs",
        "Ceph: bytes of the backup differ from the volume's snapshot that it was made of.",
        BACK_UP_AGAIN;
    DriverUnknown = "driver-unknown",
        "The row names no driver that this program knows, so the storage cannot be checked.",
        "Check the data in another way, for example with a restore to a new volume.";
    ExportShort = "export-short",
        "Ceph: an export of the image gives fewer bytes than its list of extents.",
        BACK_UP_AGAIN;
    ExtentsDiffer = "extents-differ",
        "Ceph: bytes changed in the backup that did not change in the volume. An increment that was cut off may have left them.",
        COMPARE_BYTES;
    Gap = "gap",
        "No object of the backup, or of those that it is based on, holds a part of the volume.",
        BACK_UP_AGAIN;
    Hole = "hole",
        "Ceph: a part of the image was never written.",
        BACK_UP_AGAIN;
    ImageForeign = "image-foreign",
        "Ceph: the image was made after this backup was finished. It belongs to another backup, and the image of this one is lost.",
        BACK_UP_AGAIN;
    ImageMissing = "image-missing",
        "Ceph: the pool has no image of this backup.",
        "Make sure that the pool and the cluster are the right ones. If they are, the data is lost: make a new full backup.";
    ImageNewer = "image-newer",
        "Ceph: the image was made or written to after this backup was finished. It was changed, copied or mirrored, or clocks differ.",
        COMPARE_BYTES;
    ImageOpen = "image-open",
        "Ceph: a client has the image open for writing. It is working on the image, or died less than a minute ago.",
        "Wait a minute and check again. If the client is still there, let it finish.";
    LargerThanSize = "larger-than-size",
        "The objects reach a little beyond `backups.size`. Some storage rounds a volume up to its own unit.",
        NOTHING;
    LevelNotReached = "level-not-reached",
        "The backup is intact at a lower level than was asked for. The text says what could not be compared.",
        "Give the check access to what the text names, or settle for the lower level.";
    ListingBehind = "listing-behind",
        "An object exists, but the listing of the storage does not have it yet. Cinder refuses to restore a backup with data objects that are not listed.",
        "Wait until the storage has updated its listing, and check again.";
    MetadataForeign = "metadata-foreign",
        "Ceph: the metadata object belongs to another volume.",
        BACK_UP_AGAIN;
    MetadataInvalid = "metadata-invalid",
        "Ceph: the metadata object does not hold volume metadata, and a restore would fail on it.",
        BACK_UP_AGAIN;
    MetadataMalformed = "metadata-malformed",
        "The `_metadata` object cannot be parsed.",
        BACK_UP_AGAIN;
    MetadataMissing = "metadata-missing",
        "The metadata object is missing. The driver writes it after the data, so the backup was not finished.",
        "Set the backup to error, as `repair` does, and make a new backup.";
    MetadataOfAnother = "metadata-of-another",
        "The `_metadata` object names another backup or another volume.",
        BACK_UP_AGAIN;
    MetadataVersion = "metadata-version",
        "The `_metadata` object has a version that no release of Cinder restores.",
        BACK_UP_AGAIN;
    More = "more",
        "There are more problems than are listed.",
        "Solve the listed ones, and check again.";
    NeverBegun = "never-begun",
        "The driver never began: its columns in the row are not set, so nothing was written.",
        "Set the backup to error, as `repair` does, and make a new backup.";
    NoDigest = "no-digest",
        "No digest of the volume fits this object, or the memory cannot hold the digests. Only the object's own MD5 was compared.",
        "Give more `--memory` if the text asks for it. Otherwise level deep is the most that can be checked.";
    NoSha256file = "no-sha256file",
        "There is no usable `_sha256file`. Only the MD5 of the objects can be compared.",
        "Settle for level deep. A new full backup has a `_sha256file`.";
    NoTimes = "no-times",
        "The storage does not report when objects were written, so nothing shows whether the backup is still being written.",
        "Make sure that no cinder-backup works on the backup before you change it.";
    NoWitness = "no-witness",
        "With `--to deleted`: nothing of the backup was found, and nothing of another available backup in the same place either. It may be another account, region or cluster, or a directory that is not mounted.",
        "Make sure that the configuration names the right storage. If it does, override this with `--allow-unverified`.";
    NotFollowed = "not-followed",
        "The name leads to a link, or out of the container. It was not followed, and the target was not read.",
        "Put the object itself in its place, or check on a host where it is in its place.";
    ObjectBroken = "object-broken",
        "An object cannot be decompressed, or ends in the wrong place.",
        BACK_UP_AGAIN;
    ObjectDigest = "object-digest",
        "The MD5 of an object is not the one in the metadata.",
        BACK_UP_AGAIN;
    ObjectDoubtful = "object-doubtful",
        "The listing contradicts the metadata about too many objects to request each of them.",
        "See the first such objects, which were requested one by one, and check again.";
    ObjectExtra = "object-extra",
        "An object is not in the list of the metadata. Cinder would refuse to restore the backup.",
        "Find out where the object came from. If it is not needed, move it away and check again.";
    ObjectForeign = "object-foreign",
        "The metadata lists an object that cannot belong to this backup: its name belongs to another backup, or it has no data.",
        BACK_UP_AGAIN;
    ObjectMissing = "object-missing",
        "An object is not on the storage.",
        BACK_UP_AGAIN;
    ObjectNotPlain = "object-not-plain",
        "A directory, device or pipe is where an object should be.",
        BACK_UP_AGAIN;
    ObjectRewritten = "object-rewritten",
        "An object was written again during the check, so what was read proves nothing.",
        "Find out who writes to it, wait until it is finished, and check again.";
    ObjectSize = "object-size",
        "The size of an object does not fit the length in the metadata.",
        BACK_UP_AGAIN;
    ObjectTwice = "object-twice",
        "The metadata lists an object twice.",
        BACK_UP_AGAIN;
    ObjectUnlisted = "object-unlisted",
        "The listing lacks too many objects to request each of them.",
        "Wait until the storage has updated its listing, and check again.";
    ObjectsDoubtful = "objects-doubtful",
        "Ceph: objects are in the image's object map, but not in the pool. They were lost, or never written by an increment that was cut off.",
        "Check with `--level restore --ceph-source-pool POOL`. Make the next backup of the volume a full one.";
    ObjectsUnexamined = "objects-unexamined",
        "Ceph: not all objects without data were looked up one by one.",
        NOTHING;
    Overlap = "overlap",
        "Two objects hold the same part of the volume.",
        BACK_UP_AGAIN;
    ParentDamaged = "parent-damaged",
        "A backup that this one is based on is damaged, or could not be verified.",
        CHECK_PARENT;
    ParentDeleting = "parent-deleting",
        "A backup that this one is based on is being deleted. cinder-backup continues the deletion when it starts.",
        "Repair that backup first, before cinder-backup starts.";
    ParentDiffers = "parent-differs",
        "The metadata names another parent than `backups.parent_id`.",
        "Find out which one is right. With the wrong one, a restore gives wrong data.";
    ParentMissing = "parent-missing",
        "The chain has no full backup at its end: a parent does not exist, or the chain is a circle.",
        BACK_UP_AGAIN;
    ParentOfAnotherVolume = "parent-of-another-volume",
        "A backup that this one is based on belongs to another volume. A restore would give the data of neither.",
        BACK_UP_AGAIN;
    ParentSha256file = "parent-sha256file",
        "Something is wrong with a backup that this one is based on, but a restore does not read it.",
        CHECK_PARENT;
    ParentUnreadable = "parent-unreadable",
        "A disk gives read errors for the data of a backup that this one is based on.",
        CHECK_PARENT;
    PoolDiffers = "pool-differs",
        "Ceph: the backup is in another pool than `backup_ceph_pool`, where a restore looks for it.",
        "Set `backup_ceph_pool` to the pool of the backup before a restore.";
    PoolMissing = "pool-missing",
        "Ceph: the pool does not exist.",
        "Make sure that `backup_ceph_pool` and `backup_ceph_conf` name the right pool and cluster.";
    PoolWithoutBackups = "pool-without-backups",
        "Ceph: the pool holds no Cinder backup at all, so the absence of this one proves nothing.",
        "Select the right pool with `--storage-option backup_ceph_pool=POOL`, and the right cluster with `--storage-option backup_ceph_conf=FILE`.";
    PrefixOfAnother = "prefix-of-another",
        "`backups.service_metadata` is the object prefix of another backup.",
        BACK_UP_AGAIN;
    ReadTwice = "read-twice",
        "The first read of an object was wrong, and the second one was right.",
        "Test the network, the memory and the disks between the storage and this host.";
    SecondRead = "second-read",
        "Ceph: the first read ended with an error, and the second one did not.",
        "Look for failing disks in the cluster.";
    ServiceMetadataInvalid = "service-metadata-invalid",
        "Ceph: `backups.service_metadata` is not the JSON that the driver writes, or does not name an image of this volume.",
        "Compare the column with a copy of the database, and correct it.";
    Sha256fileMalformed = "sha256file-malformed",
        "The `_sha256file` object cannot be parsed. A restore does not read it, but an increment on this backup does.",
        FULL_BACKUP;
    Sha256fileMissing = "sha256file-missing",
        "The `_sha256file` object is missing. A restore does not read it, but no increment can be made on this backup.",
        FULL_BACKUP;
    Sha256fileOfAnother = "sha256file-of-another",
        "The `_sha256file` object names another backup or another volume. A restore does not read it, but an increment on this backup does.",
        FULL_BACKUP;
    Sha256fileWrong = "sha256file-wrong",
        "The digests in the `_sha256file` object do not fit the data, which its own MD5 shows to be right, or their number is wrong.",
        FULL_BACKUP;
    Size = "size",
        "Ceph: the size of the image or snapshot is not `backups.size`.",
        BACK_UP_AGAIN;
    SizeUnknown = "size-unknown",
        "Nothing shows how much of the volume the backup should hold: `backups.size` is not usable, or the volume may have grown after its snapshot.",
        "Correct `backups.size` if it is wrong, and check again.";
    SmallerThanSize = "smaller-than-size",
        "The backup holds less than `backups.size`: the volume was extended after the snapshot that was backed up.",
        NOTHING;
    SnapshotMissing = "snapshot-missing",
        "Ceph: the snapshot that the driver makes after the last byte is missing. The transfer did not end, or never began.",
        BACK_UP_AGAIN;
    SnapshotNewer = "snapshot-newer",
        "Ceph: the snapshot was made after the backup was finished. It was made again, copied or mirrored, or clocks differ.",
        COMPARE_BYTES;
    SnapshotOrder = "snapshot-order",
        "Ceph: the snapshot was made after that of a later backup. It was made again, or the clocks of the backup hosts differ.",
        COMPARE_BYTES;
    SnapshotRemade = "snapshot-remade",
        "Ceph: the snapshot was removed and made again later, and holds what the image held then.",
        BACK_UP_AGAIN;
    SnapshotTwice = "snapshot-twice",
        "Ceph: the image has several snapshots of this backup, and the driver accepts only one.",
        BACK_UP_AGAIN;
    SnapshotUndated = "snapshot-undated",
        "Ceph: it is not known when the snapshot was made, so it may have been recreated.",
        COMPARE_BYTES;
    StaleLock = "stale-lock",
        "Ceph: the image is locked by a client that is gone. The process that wrote it was killed.",
        "Make sure that no cinder-backup works on the image before you change the backup.";
    StorageAuthentication = "storage-authentication",
        "The storage did not accept the credentials.",
        "Correct the credentials, and check again.";
    StorageAway = "storage-away",
        "The storage was unreachable for so long that the check stopped sending requests.",
        "Check again once the storage is reachable.";
    StorageConfiguration = "storage-configuration",
        "The storage cannot be used as it is configured.",
        "Correct the configuration as the text says, and check again.";
    StorageContradicts = "storage-contradicts",
        "Two answers of the storage contradict each other: for example, the listing has an object that a request by name does not find.",
        "Check again later. If it happens again, have the storage examined.";
    StoragePermission = "storage-permission",
        "The account may not read an object or a listing.",
        "Use an account that may list and read the container, and check again.";
    StorageProtocol = "storage-protocol",
        "The server or the operating system gave an answer that makes no sense, such as HTML, a redirect or a wrong length.",
        "Make sure that the address is that of the storage and not of a portal or proxy, and check again.";
    StorageUnavailable = "storage-unavailable",
        "Ceph: the cluster did not answer in time.",
        "Check again once the cluster is reachable.";
    StorageUnreachable = "storage-unreachable",
        "The storage did not answer, or reported an error that may be temporary.",
        "Check again once the storage is reachable.";
    StorageUnreadable = "storage-unreadable",
        "A read of the object failed in a way that says nothing about the data.",
        CHECK_AGAIN;
    TailHole = "tail-hole",
        "Ceph: nothing was written after a byte of the image. That is right if the snapshot is from a time before the volume grew.",
        "Find out when the volume was extended. If that was before the snapshot, the end of the backup is missing.";
    TooLarge = "too-large",
        "The lists of objects do not fit into the memory that the check may use.",
        "Give more `--memory` if the text asks for it.";
    TransferDiffers = "transfer-differs",
        "The bytes that were read differ from what the storage reports that it holds. They were damaged on the network or in the storage.",
        "Find out where, and check again.";
    Unreadable = "unreadable",
        "A disk, its file system or its storage daemon gives read errors for the data. A restore would fail today.",
        "Repair the disk or the cluster, and check again. Decide nothing about the backup until then.";
    VolumeMeta = "volume-meta",
        "The volume's own properties in the metadata are wrong: a restore would write the data, and then fail.",
        BACK_UP_AGAIN;
    VolumeUnknown = "volume-unknown",
        "Ceph: the row names no volume, so the name of the image is not known.",
        "Find the volume in a copy of the database, and correct `backups.volume_id`.";
    }
}
