-- backup_lock_juno: one live backup, locked until the transaction ends (Icehouse, Juno and Kilo).
-- SQLite locks the whole file at BEGIN IMMEDIATE, so there is no FOR UPDATE here.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, NULL AS parent_id, NULL AS temp_volume_id,
       NULL AS temp_snapshot_id, NULL AS num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE id = ?1
   AND deleted = 0;
