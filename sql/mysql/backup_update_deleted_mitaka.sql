-- backup_update_deleted_mitaka: deletes one backup as Cinder does, or restores it, if the row is as planned (Mitaka and later).
-- Parameters: the new status, whether it is deleted then, since when (NULL for now), the id, whether it was deleted, then every guarded
-- column as it was read. Like Cinder, it leaves updated_at as it is. Exactly one row must match.
-- MySQL assigns from left to right, so deleted_at is set by the new value of deleted.
UPDATE backups
   SET status = ?,
       deleted = ?,
       deleted_at = IF(deleted, COALESCE(?, UTC_TIMESTAMP()), NULL)
 WHERE id = ?
   AND deleted = ?
   AND status <=> ?
   AND host <=> ?
   AND availability_zone <=> ?
   AND service <=> ?
   AND volume_id <=> ?
   AND size <=> ?
   AND object_count <=> ?
   AND container <=> ?
   AND service_metadata <=> ?
   AND fail_reason <=> ?
   AND CAST(updated_at AS CHAR) <=> ?
   AND parent_id <=> ?
   AND temp_volume_id <=> ?
   AND temp_snapshot_id <=> ?
   AND num_dependent_backups <=> ?
   AND snapshot_id <=> ?
   AND restore_volume_id <=> ?;
