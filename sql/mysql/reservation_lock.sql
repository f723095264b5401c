-- reservation_lock: locks one reservation until the transaction ends, and reads it, whether or not it is deleted.
-- FOR UPDATE reads the newest committed row.
SELECT id, project_id, usage_id, resource, delta, CAST(expire AS CHAR) AS expire, deleted
  FROM reservations
 WHERE id = ?
   FOR UPDATE;
