-- backup_metadata_update: deletes one row of a backup's metadata as Cinder does, or restores it, if the row is as planned.
-- Parameters: whether it is deleted then, the id, whether it was deleted, the backup. Exactly one row must match.
UPDATE backup_metadata
   SET deleted = (CAST($1 AS bigint) = 1),
       deleted_at = CASE WHEN CAST($1 AS bigint) = 1 THEN timezone('utc', clock_timestamp()) END
 WHERE id = CAST($2 AS bigint)
   AND deleted = (CAST($3 AS bigint) = 1)
   AND backup_id IS NOT DISTINCT FROM CAST($4 AS text);
