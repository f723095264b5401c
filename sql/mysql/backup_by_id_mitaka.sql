-- backup_by_id_mitaka: reads one backup, whether or not it is deleted (Mitaka and later).
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, CAST(created_at AS CHAR) AS created_at, CAST(updated_at AS CHAR) AS updated_at, parent_id,
       temp_volume_id, temp_snapshot_id, num_dependent_backups, snapshot_id, restore_volume_id, deleted,
       CAST(deleted_at AS CHAR) AS deleted_at
  FROM backups
 WHERE id = ?;
