-- snapshot_update: changes the status of one snapshot if the row is as planned.
-- Parameters: the new status, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE snapshots
   SET status = CAST($1 AS text),
       updated_at = timezone('utc', clock_timestamp())
 WHERE id = CAST($2 AS text)
   AND deleted = FALSE
   AND status IS NOT DISTINCT FROM CAST($3 AS text)
   AND volume_id IS NOT DISTINCT FROM CAST($4 AS text)
   AND updated_at IS NOT DISTINCT FROM CAST($5 AS timestamp);
