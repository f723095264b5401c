-- backup_lock_liberty: locks one live backup until the transaction ends, and reads it (Liberty).
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE id = ?1
   AND deleted = 0;
