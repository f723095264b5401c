-- reservation_by_id: reads one reservation, whether or not it is deleted.
SELECT id, project_id, usage_id, resource, delta, CAST(expire AS CHAR) AS expire, deleted
  FROM reservations
 WHERE id = ?;
