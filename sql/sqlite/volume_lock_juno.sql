-- volume_lock_juno: one live volume, locked until the transaction ends (before Liberty).
-- SQLite locks the whole file at BEGIN IMMEDIATE, so there is no FOR UPDATE here.
SELECT id, status, attach_status, size, display_name, project_id, created_at, updated_at,
       NULL AS previous_status
  FROM volumes
 WHERE id = ?1
   AND deleted = 0;
