-- snapshot_by_id: one live snapshot, without a lock: for dry runs and for reading back.
SELECT id, status, volume_id, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at
  FROM snapshots
 WHERE id = ?
   AND deleted = 0;
