-- snapshot_lock: locks one live snapshot until the transaction ends, and reads it.
-- FOR UPDATE reads the newest committed row.
SELECT id, status, volume_id, display_name, project_id,
       CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at,
       CASE WHEN updated_at >= '0001-01-01' AND isfinite(updated_at)
            THEN to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(updated_at AS text) END AS updated_at
  FROM snapshots
 WHERE id = CAST($1 AS text)
   AND deleted = FALSE
   FOR UPDATE;
