-- volume_lock_liberty: locks one live volume until the transaction ends, and reads it (Liberty and later).
-- FOR UPDATE reads the newest committed row.
SELECT id, status, attach_status, size, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at, previous_status
  FROM volumes
 WHERE id = ?
   AND deleted = 0
   FOR UPDATE;
