-- backups_references_mitaka: reads what every live backup refers to, in one pass over the table (Mitaka and later).
-- Of these columns only id has an index, so one pass finds the backups of all volumes, snapshots and parents at once.
SELECT id, volume_id, parent_id, snapshot_id, restore_volume_id
  FROM backups
 WHERE deleted = 0;
