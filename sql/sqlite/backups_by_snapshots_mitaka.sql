-- backups_by_snapshots_mitaka: reads the live backups of a list of snapshots (Mitaka and later).
-- Scans the live rows. Runs only for snapshots that are backing-up without an active backup, or that were updated after a backup began to
-- use them.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, snapshot_id, restore_volume_id
  FROM backups
 WHERE snapshot_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
