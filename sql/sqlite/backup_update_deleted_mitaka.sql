-- backup_update_deleted_mitaka: deletes one backup as Cinder does, or restores it, if the row is as planned (Mitaka and later).
-- Parameters: the new status, whether it is deleted then, since when (NULL for now), the id, whether it was deleted, then every guarded
-- column as it was read. Like Cinder, it leaves updated_at as it is. Exactly one row must match.
UPDATE backups
   SET status = ?1,
       deleted = ?2,
       deleted_at = CASE WHEN ?2 THEN COALESCE(?3, strftime('%Y-%m-%d %H:%M:%f000', 'now')) END
 WHERE id = ?4
   AND deleted = ?5
   AND status IS ?6
   AND host IS ?7
   AND availability_zone IS ?8
   AND service IS ?9
   AND volume_id IS ?10
   AND size IS ?11
   AND object_count IS ?12
   AND container IS ?13
   AND service_metadata IS ?14
   AND fail_reason IS ?15
   AND updated_at IS ?16
   AND parent_id IS ?17
   AND temp_volume_id IS ?18
   AND temp_snapshot_id IS ?19
   AND num_dependent_backups IS ?20
   AND snapshot_id IS ?21
   AND restore_volume_id IS ?22;
