-- backups_by_ids_liberty: reads live backups by a list of primary keys (Liberty).
-- The + keeps SQLite from using the index on deleted and project, through which each list would read all live rows.
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE id IN (SELECT value FROM json_each(?1))
   AND +deleted = 0;
