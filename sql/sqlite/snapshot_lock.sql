-- snapshot_lock: one live snapshot, locked until the transaction ends.
-- SQLite locks the whole file at BEGIN IMMEDIATE, so there is no FOR UPDATE here.
SELECT id, status, volume_id, display_name, project_id, created_at, updated_at
  FROM snapshots
 WHERE id = ?1
   AND deleted = 0;
