-- backup_update_deleted_mitaka: deletes one backup as Cinder does, or restores it, if the row is as planned (Mitaka and later).
-- Parameters: the new status, whether it is deleted then, the id, whether it was deleted, then every guarded column as it was read. Like
-- Cinder, it leaves updated_at as it is. Exactly one row must match.
UPDATE backups
   SET status = ?1,
       deleted = ?2,
       deleted_at = CASE WHEN ?2 THEN strftime('%Y-%m-%d %H:%M:%f000', 'now') END
 WHERE id = ?3
   AND deleted = ?4
   AND status IS ?5
   AND host IS ?6
   AND service IS ?7
   AND volume_id IS ?8
   AND size IS ?9
   AND object_count IS ?10
   AND container IS ?11
   AND service_metadata IS ?12
   AND fail_reason IS ?13
   AND updated_at IS ?14
   AND parent_id IS ?15
   AND temp_volume_id IS ?16
   AND temp_snapshot_id IS ?17
   AND num_dependent_backups IS ?18
   AND snapshot_id IS ?19
   AND restore_volume_id IS ?20;
