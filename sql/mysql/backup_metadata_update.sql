-- backup_metadata_update: deletes one row of a backup's metadata as Cinder does, or restores it, if the row is as planned.
-- Parameters: whether it is deleted then, the id, whether it was deleted, the backup. Exactly one row must match.
-- MySQL assigns from left to right, so deleted_at is set by the new value of deleted.
UPDATE backup_metadata
   SET deleted = ?,
       deleted_at = IF(deleted, UTC_TIMESTAMP(), NULL)
 WHERE id = ?
   AND deleted = ?
   AND backup_id <=> ?;
