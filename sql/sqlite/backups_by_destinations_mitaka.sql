-- backups_by_destinations_mitaka: reads the live backups that were last restored to one of a list of volumes (Mitaka and later).
-- Scans the live rows. Runs only for volumes that are restoring-backup without an active backup, or that were updated after a restore
-- began to use them.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, snapshot_id, restore_volume_id
  FROM backups
 WHERE restore_volume_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
