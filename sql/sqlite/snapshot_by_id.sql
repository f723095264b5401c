-- snapshot_by_id: reads one live snapshot by primary key without a lock, for dry runs and to check the result.
SELECT id, status, volume_id, display_name, project_id, created_at, updated_at
  FROM snapshots
 WHERE id = ?1
   AND deleted = 0;
