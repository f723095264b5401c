-- reservation_by_id: reads one reservation, whether or not it is deleted.
SELECT id, project_id, usage_id, resource, delta, expire, deleted
  FROM reservations
 WHERE id = ?1;
