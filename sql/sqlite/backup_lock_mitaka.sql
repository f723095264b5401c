-- backup_lock_mitaka: locks one backup until the transaction ends, and reads it, whether or not it is deleted (Mitaka and later).
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, snapshot_id, restore_volume_id, deleted,
       deleted_at
  FROM backups
 WHERE id = ?1;
