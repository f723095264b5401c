-- snapshot_by_id: reads one live snapshot by primary key without a lock, for dry runs and to check the result.
SELECT id, status, volume_id, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at
  FROM snapshots
 WHERE id = ?
   AND deleted = 0;
