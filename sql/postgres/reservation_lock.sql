-- reservation_lock: locks one reservation until the transaction ends, and reads it, whether or not it is deleted.
-- FOR UPDATE reads the newest committed row.
SELECT id, project_id, usage_id, resource, delta,
       CASE WHEN expire >= '0001-01-01' AND isfinite(expire)
            THEN to_char(expire, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(expire AS text) END AS expire,
       deleted
  FROM reservations
 WHERE id = CAST($1 AS bigint)
   FOR UPDATE;
