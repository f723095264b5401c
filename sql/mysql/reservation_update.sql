-- reservation_update: ends one reservation as Cinder does, or restores it, if the row is as planned.
-- Parameters: whether it is deleted then, the id, whether it was deleted, then every other guarded column. Exactly one row must match.
-- MySQL assigns from left to right, so deleted_at is set by the new value of deleted.
UPDATE reservations
   SET deleted = ?,
       deleted_at = IF(deleted, UTC_TIMESTAMP(), NULL)
 WHERE id = ?
   AND deleted = ?
   AND project_id <=> ?
   AND usage_id <=> ?
   AND resource <=> ?
   AND delta <=> ?
   AND CAST(expire AS CHAR) <=> ?;
