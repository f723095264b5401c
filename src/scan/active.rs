//! Active backups, by the volumes and snapshots that they use.

use crate::domain::Backup;
use crate::domain::decide::Peer;
use crate::domain::status::NO_VOLUME;

/// The active backups (`creating`, `restoring`, `deleting`, NULL) by the rows that they use, none of them as released.
pub trait ActiveBackups {
    /// Those that are made of a volume or restored to it.
    fn of_volume(&self, id: &str) -> Vec<Peer>;
    /// Those that are made of a snapshot.
    fn of_snapshot(&self, id: &str) -> Vec<Peer>;
    /// Those that are being restored.
    fn restoring(&self) -> Vec<Peer>;
}

/// The volumes that a backup is made of or restored to. All unfinished imports name the same volume, which does not exist.
pub fn volumes_of(backup: &Backup) -> impl Iterator<Item = &String> {
    [&backup.volume_id, &backup.restore_volume_id].into_iter().flatten().filter(|volume| *volume != NO_VOLUME)
}
