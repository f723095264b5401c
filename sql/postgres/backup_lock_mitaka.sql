-- backup_lock_mitaka: locks one backup until the transaction ends, and reads it, whether or not it is deleted (Mitaka and later).
-- FOR UPDATE reads the newest committed row.
SELECT id, status, host, availability_zone, service, volume_id, display_name, project_id, size, object_count, container, service_metadata,
       fail_reason,
       CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at,
       CASE WHEN updated_at >= '0001-01-01' AND isfinite(updated_at)
            THEN to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(updated_at AS text) END AS updated_at,
       parent_id, temp_volume_id,
       temp_snapshot_id, num_dependent_backups, snapshot_id, restore_volume_id, deleted,
       CASE WHEN deleted_at >= '0001-01-01' AND isfinite(deleted_at)
            THEN to_char(deleted_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(deleted_at AS text) END AS deleted_at
  FROM backups
 WHERE id = CAST($1 AS text)
   FOR UPDATE;
