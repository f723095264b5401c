-- backups_by_snapshots_mitaka: live backups that are made of one of a list of snapshots (Mitaka and later).
-- A pass over the live rows; run only for snapshots that are backing-up with no active backup, or that were marked after one took them.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, snapshot_id, restore_volume_id
  FROM backups
 WHERE snapshot_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
