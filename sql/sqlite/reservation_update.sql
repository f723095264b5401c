-- reservation_update: ends one reservation as Cinder does, or restores it, if the row is as planned.
-- Parameters: whether it is deleted then, the id, whether it was deleted, then every other guarded column. Exactly one row must match.
UPDATE reservations
   SET deleted = ?1,
       deleted_at = CASE WHEN ?1 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END
 WHERE id = ?2
   AND deleted = ?3
   AND project_id IS ?4
   AND usage_id IS ?5
   AND resource IS ?6
   AND delta IS ?7
   AND expire IS ?8;
