-- backup_update_deleted_mitaka: deletes one backup as Cinder does, or restores it, if the row is as planned (Mitaka and later).
-- Parameters: the new status, whether it is deleted then, since when (NULL for now), the id, whether it was deleted, then every guarded
-- column as it was read. Like Cinder, it leaves updated_at as it is. Exactly one row must match.
UPDATE backups
   SET status = CAST($1 AS text),
       deleted = (CAST($2 AS bigint) = 1),
       deleted_at = CASE WHEN CAST($2 AS bigint) = 1 THEN COALESCE(CAST($3 AS timestamp), timezone('utc', clock_timestamp())) END
 WHERE id = CAST($4 AS text)
   AND deleted = (CAST($5 AS bigint) = 1)
   AND status IS NOT DISTINCT FROM CAST($6 AS text)
   AND host IS NOT DISTINCT FROM CAST($7 AS text)
   AND availability_zone IS NOT DISTINCT FROM CAST($8 AS text)
   AND service IS NOT DISTINCT FROM CAST($9 AS text)
   AND volume_id IS NOT DISTINCT FROM CAST($10 AS text)
   AND size IS NOT DISTINCT FROM CAST($11 AS bigint)
   AND object_count IS NOT DISTINCT FROM CAST($12 AS bigint)
   AND container IS NOT DISTINCT FROM CAST($13 AS text)
   AND service_metadata IS NOT DISTINCT FROM CAST($14 AS text)
   AND fail_reason IS NOT DISTINCT FROM CAST($15 AS text)
   AND updated_at IS NOT DISTINCT FROM CAST($16 AS timestamp)
   AND parent_id IS NOT DISTINCT FROM CAST($17 AS text)
   AND temp_volume_id IS NOT DISTINCT FROM CAST($18 AS text)
   AND temp_snapshot_id IS NOT DISTINCT FROM CAST($19 AS text)
   AND num_dependent_backups IS NOT DISTINCT FROM CAST($20 AS bigint)
   AND snapshot_id IS NOT DISTINCT FROM CAST($21 AS text)
   AND restore_volume_id IS NOT DISTINCT FROM CAST($22 AS text);
