-- backup_update_liberty: changes one backup if the row is as planned (Liberty).
-- Parameters: the new values, the id, then every guarded column as it was read. Columns that do not change are set to their old value.
-- Exactly one row must match.
UPDATE backups
   SET status = ?,
       size = ?,
       object_count = ?,
       service_metadata = ?,
       fail_reason = ?,
       num_dependent_backups = ?,
       updated_at = UTC_TIMESTAMP()
 WHERE id = ?
   AND deleted = 0
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
   AND num_dependent_backups <=> ?;
