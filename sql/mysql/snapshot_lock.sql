-- snapshot_lock: one live snapshot, locked until the transaction ends.
-- FOR UPDATE reads the newest committed row and holds it to the end of the transaction.
SELECT id, status, volume_id, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at
  FROM snapshots
 WHERE id = ?
   AND deleted = 0
   FOR UPDATE;
