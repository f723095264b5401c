-- backups_by_parents_liberty: reads the live children of a list of backups (Liberty).
-- Scans the table, because parent_id has no index. Runs only for parents that are missing or in error.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE parent_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
