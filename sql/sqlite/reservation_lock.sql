-- reservation_lock: locks one reservation until the transaction ends, and reads it, whether or not it is deleted.
-- SQLite has no FOR UPDATE: BEGIN IMMEDIATE has locked the whole file.
SELECT id, project_id, usage_id, resource, delta, expire, deleted
  FROM reservations
 WHERE id = ?1;
