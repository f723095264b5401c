-- snapshot_lock: locks one live snapshot until the transaction ends, and reads it.
-- FOR UPDATE reads the newest committed row.
SELECT id, status, volume_id, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at
  FROM snapshots
 WHERE id = ?
   AND deleted = 0
   FOR UPDATE;
