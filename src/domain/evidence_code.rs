//! The codes of evidence: why a finding has its verdict, and what was taken into account for its proposal.

use super::code::codes;

const NOTHING: &str = "Nothing.";
const REVIEW_RISK: &str = "Review the unit: the operator took this risk with an option.";
const SCAN_AGAIN: &str = "Repair the others first, then scan again.";
const HOST_DEAD: &str = "If you know that the host is dead, name it with `--assume-dead`. Otherwise wait, and scan again.";
const WAIT: &str = "Wait until the operation ends, and scan again.";
const RIGHT_TIME: &str = "Correct the column, or name the host with `--assume-dead` if you know that it is dead.";
const LOOK_AT_VOLUME: &str = "Inspect the volume with the command that the finding suggests, and decide what to do with it.";
const LATER: &str = "Run the command that the finding suggests once the API is back.";

codes! {
    /// A reason for a verdict, or something that was taken into account for a proposal.
    EvidenceCode {
    AcceptedQuick = "accepted-quick",
        "The backup becomes available although none of its data was read, or nothing proves it. `--accept-quick` was given.",
        REVIEW_RISK;
    Asked = "asked",
        "The deletion of the backup failed, and `--status error_deleting` asked for it.",
        NOTHING;
    AssumedDead = "assumed-dead",
        "The host was declared dead with `--assume-dead`, regardless of its heartbeat.",
        "Make sure that cinder-backup really does not run there.";
    Attached = "attached",
        "The volume was available before the backup, but is attached now. It goes back to in-use, the safer of the two.",
        NOTHING;
    AttachmentLeftover = "attachment-leftover",
        "An attachment of the backup host to the volume was left behind.",
        LATER;
    BeingWritten = "being-written",
        "The storage shows signs of work: an object younger than `--settle`, or a client that has the image open.",
        WAIT;
    CounterLater = "counter-later",
        "`num_dependent_backups` cannot be corrected yet, because the row has a pending operation or is repaired for another reason.",
        "Scan again after this repair.";
    CounterWrong = "counter-wrong",
        "`num_dependent_backups` is not the number of live increments on the backup. Cinder refuses a deletion, or allows one that it must not.",
        "Run `repair --fix-counters`.";
    DestinationGone = "destination-gone",
        "The volume that the backup was restored to no longer exists.",
        NOTHING;
    DestinationHeld = "destination-held",
        "The volume stays as it is, because another backup is being restored to it.",
        SCAN_AGAIN;
    DestinationMovedOn = "destination-moved-on",
        "The volume that the backup was restored to has another status already, and keeps it.",
        NOTHING;
    DestinationSuspected = "destination-suspected",
        "The volume stays as it is, because a cinder-backup may still restore another backup to it.",
        SCAN_AGAIN;
    DestinationUnknown = "destination-unknown",
        "The database has no record of the volume that the backup was restored to.",
        "Look for volumes in `restoring-backup`. A scan reports those that no backup explains.";
    HeartbeatUnreadable = "heartbeat-unreadable",
        "The heartbeat of the host is not a time, so its cinder-backup may be working.",
        HOST_DEAD;
    HeldInSilence = "held-in-silence",
        "Another backup may use the row, but its host is silent. The repair waits for a heartbeat of that host first.",
        "Make sure that the named host is down.";
    HostQueue = "host-queue",
        "cinder-backup on the host has other backups to create or restore. It works on `backup_max_operations` of them at a time (15 by \
         default), and the others wait.",
        "Wait as long as rows of the host change. If none changes, find out why.";
    NeverScheduled = "never-scheduled",
        "The backup has no host, so no cinder-backup knows of it.",
        NOTHING;
    NoActiveBackup = "no-active-backup",
        "A volume or snapshot is marked for a backup or a restore, but no active backup explains that.",
        NOTHING;
    NoStatus = "no-status",
        "The status of the backup is NULL.",
        NOTHING;
    NoTimes = "no-times",
        "Neither `created_at` nor `updated_at` is set, so the age of the row is not known.",
        "Make sure that nothing is working on it.";
    NotAttached = "not-attached",
        "The volume was in use before the backup, but has no live attachment. It goes back to in-use, the safer of the two.",
        "If nothing uses the volume, set it to available later.";
    ParentInError = "parent-in-error",
        "The parent of the increment is in error, so the increment may not be restorable.",
        "Check the increment with `check`, which reads its chain.";
    ParentMissing = "parent-missing",
        "The parent of the increment no longer exists, so the increment cannot be restored.",
        "Make a new full backup of the volume.";
    PreviousStatusUnusable = "previous-status-unusable",
        "`volumes.previous_status` is not a status to go back to. The attachments decide.",
        NOTHING;
    QuotaDuplicate = "quota-duplicate",
        "`quota_usages` has several live rows of the project for the same resource, so none of them has the total.",
        "Run `cinder-manage quota sync` for the project, which merges them.";
    QuotaTooLow = "quota-too-low",
        "The quota of the project counts less than the backup that becomes deleted, so it stays at 0.",
        "Run `repair --fix-quotas` for the project.";
    QuotaWrong = "quota-wrong",
        "The quota usage of the project differs from the number and size of its live backups, or from its reservations.",
        "Run `repair --fix-quotas`.";
    Recent = "recent",
        "The row was changed more recently than `--older-than`, so it may not be stuck.",
        "Wait, or give a shorter `--older-than` if you know that it is stuck.";
    ReservationsExpired = "reservations-expired",
        "Reservations of the project have expired and still count: the operations that made them never ended.",
        "Run `repair --fix-quotas`.";
    ServerJustStarted = "server-just-started",
        "The host is silent, but the database server started less than twice `service_down_time` ago. No service could write a heartbeat before.",
        "Wait for twice `service_down_time`, and scan again.";
    ServiceDown = "service-down",
        "The last heartbeat of the host is older than `service_down_time`. A missing heartbeat proves nothing, so a repair waits for one first.",
        "Make sure that cinder-backup on the host is down.";
    ServiceMissing = "service-missing",
        "The host has no service row: it was retired. A repair waits for a heartbeat first.",
        "Make sure that cinder-backup does not run on the host.";
    ServiceUp = "service-up",
        "cinder-backup on the host has a recent heartbeat. It may work on the backup, or have it in its queue.",
        "Run `check --level deep`: a complete backup becomes available. If you know that the operation is lost, use `--assume-dead`.";
    ServicesDown = "services-down",
        "Backups of several silent hosts may use the row, and a unit waits for the heartbeat of one host only.",
        "Name the hosts that are dead with `--assume-dead`.";
    SnapshotGone = "snapshot-gone",
        "The snapshot of the backup no longer exists.",
        NOTHING;
    SnapshotHeld = "snapshot-held",
        "The snapshot stays as it is, because another backup is being made of it.",
        SCAN_AGAIN;
    SnapshotMovedOn = "snapshot-moved-on",
        "The snapshot of the backup has another status already, and keeps it.",
        NOTHING;
    SnapshotSuspected = "snapshot-suspected",
        "The snapshot stays as it is, because a cinder-backup may still read it for another backup.",
        SCAN_AGAIN;
    StatusUnusable = "status-unusable",
        "The volume has a status that a restart of cinder-backup can leave, and that Cinder cannot use.",
        LATER;
    StorageComplete = "storage-complete",
        "The driver has written everything, and nothing was written for longer than `--settle`. Only the rows are left to change.",
        NOTHING;
    StorageCorrupt = "storage-corrupt",
        "A check found all of the data, and part of it is wrong.",
        "Make a new full backup of the volume. The problems of the check say what is wrong.";
    StorageIncomplete = "storage-incomplete",
        "A check found that part of the data is missing.",
        "Make a new full backup of the volume. The problems of the check say what is missing.";
    StorageIntact = "storage-intact",
        "A check found the data intact.",
        NOTHING;
    StorageMissing = "storage-missing",
        "A check found none of the data.",
        "Make sure that the storage is the right one, then make a new full backup of the volume.";
    StorageMoved = "storage-moved",
        "The storage recheck found a change since the check, so the unit is refused.",
        "Check the backup again, and make a new plan.";
    StorageNotSeenAgain = "storage-not-seen-again",
        "The storage recheck could not read the storage, so the unit depends on the earlier check.",
        "Run the repair on a host that reaches the storage if the check is old.";
    StorageUnchanged = "storage-unchanged",
        "The storage recheck found the backup as the check saw it.",
        NOTHING;
    StorageUnverifiable = "storage-unverifiable",
        "A check could not be finished, or did not reach its level.",
        "Solve the problems that the check lists, and check again.";
    TemporaryLeftover = "temporary-leftover",
        "A temporary volume or snapshot that was made for the backup was left behind.",
        LATER;
    TimeUnreadable = "time-unreadable",
        "`created_at` or `updated_at` is not a time, so the age of the row is not known.",
        RIGHT_TIME;
    Undo = "undo",
        "The unit restores what the named run changed.",
        NOTHING;
    UnfinishedImport = "unfinished-import",
        "The backup is an import that did not finish: it has no volume and no size.",
        "Import it again.";
    Unverified = "unverified",
        "The backup becomes available although its data was not verified, or deleted although its data may still be there. \
         `--allow-unverified` was given.",
        REVIEW_RISK;
    UserMessage = "user-message",
        "Cinder's last message to the user about the backup, in Cinder's words. The number in parentheses is its `detail_id`.",
        "Solve the problem before you try the operation again.";
    UserMetadata = "user-metadata",
        "The user's own metadata of the backup (`backup_metadata`): the first five keys and values, each cut after 40 characters.",
        "It may say what the backup is for, and whom to ask.";
    VolumeGone = "volume-gone",
        "The volume of the backup no longer exists.",
        NOTHING;
    VolumeHeld = "volume-held",
        "The volume stays in `backing-up`, because another backup is being made of it.",
        SCAN_AGAIN;
    VolumeMovedOn = "volume-moved-on",
        "The volume of the backup has another status already, and keeps it.",
        NOTHING;
    VolumeSuspected = "volume-suspected",
        "The volume stays as it is, because a cinder-backup may still read it for another backup.",
        SCAN_AGAIN;
    VolumeTemporary = "volume-temporary",
        "The volume was made only for a backup, or is named like one. It is not made available.",
        LOOK_AT_VOLUME;
    }
}
