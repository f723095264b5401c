-- volume_lock_juno: one live volume, locked until the transaction ends (before Liberty).
-- FOR UPDATE reads the newest committed row and holds it to the end of the transaction.
SELECT id, status, attach_status, size, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at, NULL AS previous_status
  FROM volumes
 WHERE id = ?
   AND deleted = 0
   FOR UPDATE;
