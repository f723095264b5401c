-- backup_by_id_liberty: reads one live backup by primary key without a lock, for dry runs and to check the result (Liberty).
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, CAST(created_at AS CHAR) AS created_at, CAST(updated_at AS CHAR) AS updated_at, parent_id,
       temp_volume_id, temp_snapshot_id, num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE id = ?
   AND deleted = 0;
