-- snapshot_by_id: one live snapshot, without a lock: for dry runs and for reading back.
SELECT id, status, volume_id, display_name, project_id, created_at, updated_at
  FROM snapshots
 WHERE id = ?1
   AND deleted = 0;
