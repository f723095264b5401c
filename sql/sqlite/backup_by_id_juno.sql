-- backup_by_id_juno: reads one live backup by primary key without a lock, for dry runs and to check the result (Icehouse, Juno and Kilo).
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason, created_at, updated_at, NULL AS parent_id, NULL AS temp_volume_id,
       NULL AS temp_snapshot_id, NULL AS num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE id = ?1
   AND deleted = 0;
