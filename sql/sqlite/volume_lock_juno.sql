-- volume_lock_juno: locks one live volume until the transaction ends, and reads it (before Liberty).
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, status, attach_status, size, display_name, project_id, created_at, updated_at,
       NULL AS previous_status
  FROM volumes
 WHERE id = ?1
   AND deleted = 0;
