-- backups_by_destinations_mitaka: live backups that were last restored to one of a list of volumes (Mitaka and later).
-- A pass over the live rows; run only for volumes that are restoring-backup with no active backup, or that were marked after one took them.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, snapshot_id, restore_volume_id
  FROM backups
 WHERE restore_volume_id IN (SELECT value FROM json_each(?1))
   AND deleted = 0;
