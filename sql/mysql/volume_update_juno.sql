-- volume_update_juno: changes the status of one volume if the row is as planned (before Liberty).
-- Parameters: the new status, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE volumes
   SET status = ?,
       updated_at = UTC_TIMESTAMP()
 WHERE id = ?
   AND deleted = 0
   AND status <=> ?
   AND attach_status <=> ?
   AND CAST(updated_at AS CHAR) <=> ?;
