-- backup_lock_mitaka: one live backup, locked until the transaction ends (Mitaka and later).
-- SQLite locks the whole file at BEGIN IMMEDIATE, so there is no FOR UPDATE here.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, snapshot_id, restore_volume_id
  FROM backups
 WHERE id = ?1
   AND deleted = 0;
