-- backup_by_id_juno: reads one live backup by primary key without a lock, for dry runs and to check the result (Icehouse, Juno and Kilo).
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason,
       CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at,
       CASE WHEN updated_at >= '0001-01-01' AND isfinite(updated_at)
            THEN to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(updated_at AS text) END AS updated_at,
       NULL AS parent_id,
       NULL AS temp_volume_id, NULL AS temp_snapshot_id, NULL AS num_dependent_backups, NULL AS snapshot_id,
       NULL AS restore_volume_id
  FROM backups
 WHERE id = CAST($1 AS text)
   AND deleted = FALSE;
