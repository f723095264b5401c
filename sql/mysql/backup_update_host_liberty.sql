-- backup_update_host_liberty: moves one backup to another host if the row is as planned (Liberty).
-- Parameters: the host, its zone, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE backups
   SET host = ?,
       availability_zone = ?,
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
