-- backup_metadata_update: deletes one row of a backup's metadata as Cinder does, or restores it, if the row is as planned.
-- Parameters: whether it is deleted then, the id, whether it was deleted, the backup. Exactly one row must match.
UPDATE backup_metadata
   SET deleted = ?1,
       deleted_at = CASE WHEN ?1 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END
 WHERE id = ?2
   AND deleted = ?3
   AND backup_id IS ?4;
