-- snapshot_lock: one live snapshot, locked until the transaction ends.
-- FOR UPDATE reads the newest committed row and holds it to the end of the transaction.
SELECT id, status, volume_id, display_name, project_id,
       to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') AS created_at,
       to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') AS updated_at
  FROM snapshots
 WHERE id = CAST($1 AS text)
   AND deleted = FALSE
   FOR UPDATE;
