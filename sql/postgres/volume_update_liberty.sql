-- volume_update_liberty: changes the status of one volume if the row is as planned (Liberty and later).
-- Parameters: the new status, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE volumes
   SET status = CAST($1 AS text),
       updated_at = timezone('utc', clock_timestamp())
 WHERE id = CAST($2 AS text)
   AND deleted = FALSE
   AND status IS NOT DISTINCT FROM CAST($3 AS text)
   AND attach_status IS NOT DISTINCT FROM CAST($4 AS text)
   AND updated_at IS NOT DISTINCT FROM CAST($5 AS timestamp)
   AND previous_status IS NOT DISTINCT FROM CAST($6 AS text);
