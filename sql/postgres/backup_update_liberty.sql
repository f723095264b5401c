-- backup_update_liberty: changes one backup if the row is as planned (Liberty).
-- Parameters: the new values, the id, then every guarded column as it was read. Columns that do not change are set to their old value.
-- Exactly one row must match.
UPDATE backups
   SET status = CAST($1 AS text),
       size = CAST($2 AS bigint),
       object_count = CAST($3 AS bigint),
       service_metadata = CAST($4 AS text),
       fail_reason = CAST($5 AS text),
       num_dependent_backups = CAST($6 AS bigint),
       updated_at = timezone('utc', clock_timestamp())
 WHERE id = CAST($7 AS text)
   AND deleted = FALSE
   AND status IS NOT DISTINCT FROM CAST($8 AS text)
   AND host IS NOT DISTINCT FROM CAST($9 AS text)
   AND availability_zone IS NOT DISTINCT FROM CAST($10 AS text)
   AND service IS NOT DISTINCT FROM CAST($11 AS text)
   AND volume_id IS NOT DISTINCT FROM CAST($12 AS text)
   AND size IS NOT DISTINCT FROM CAST($13 AS bigint)
   AND object_count IS NOT DISTINCT FROM CAST($14 AS bigint)
   AND container IS NOT DISTINCT FROM CAST($15 AS text)
   AND service_metadata IS NOT DISTINCT FROM CAST($16 AS text)
   AND fail_reason IS NOT DISTINCT FROM CAST($17 AS text)
   AND updated_at IS NOT DISTINCT FROM CAST($18 AS timestamp)
   AND parent_id IS NOT DISTINCT FROM CAST($19 AS text)
   AND temp_volume_id IS NOT DISTINCT FROM CAST($20 AS text)
   AND temp_snapshot_id IS NOT DISTINCT FROM CAST($21 AS text)
   AND num_dependent_backups IS NOT DISTINCT FROM CAST($22 AS bigint);
