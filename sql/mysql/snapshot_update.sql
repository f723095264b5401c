-- snapshot_update: changes the status of one snapshot if the row is as planned.
-- Parameters: the new status, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE snapshots
   SET status = ?,
       updated_at = UTC_TIMESTAMP()
 WHERE id = ?
   AND deleted = 0
   AND status <=> ?
   AND volume_id <=> ?
   AND CAST(updated_at AS CHAR) <=> ?;
