-- backup_update_host_liberty: moves one backup to another host if the row is as planned (Liberty).
-- Parameters: the host, its zone, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE backups
   SET host = CAST($1 AS text),
       availability_zone = CAST($2 AS text),
       updated_at = timezone('utc', clock_timestamp())
 WHERE id = CAST($3 AS text)
   AND deleted = FALSE
   AND status IS NOT DISTINCT FROM CAST($4 AS text)
   AND host IS NOT DISTINCT FROM CAST($5 AS text)
   AND availability_zone IS NOT DISTINCT FROM CAST($6 AS text)
   AND service IS NOT DISTINCT FROM CAST($7 AS text)
   AND volume_id IS NOT DISTINCT FROM CAST($8 AS text)
   AND size IS NOT DISTINCT FROM CAST($9 AS bigint)
   AND object_count IS NOT DISTINCT FROM CAST($10 AS bigint)
   AND container IS NOT DISTINCT FROM CAST($11 AS text)
   AND service_metadata IS NOT DISTINCT FROM CAST($12 AS text)
   AND fail_reason IS NOT DISTINCT FROM CAST($13 AS text)
   AND updated_at IS NOT DISTINCT FROM CAST($14 AS timestamp)
   AND parent_id IS NOT DISTINCT FROM CAST($15 AS text)
   AND temp_volume_id IS NOT DISTINCT FROM CAST($16 AS text)
   AND temp_snapshot_id IS NOT DISTINCT FROM CAST($17 AS text)
   AND num_dependent_backups IS NOT DISTINCT FROM CAST($18 AS bigint);
