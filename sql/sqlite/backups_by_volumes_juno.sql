-- backups_by_volumes_juno: reads the live backups of a list of volumes (Icehouse, Juno and Kilo).
-- Scans the live rows, because volume_id has no index. Runs only for volumes that are backing-up without an active backup, or that were
-- updated after a backup began to use them.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, NULL AS parent_id, NULL AS temp_volume_id,
       NULL AS temp_snapshot_id, NULL AS num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE volume_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
