-- backup_update_mitaka: changes one backup if the row is as planned (Mitaka and later).
-- Parameters: the new values, the id, then every guarded column as it was read. Columns that do not change are set to their old value.
-- Exactly one row must match.
UPDATE backups
   SET status = ?1,
       size = ?2,
       object_count = ?3,
       service_metadata = ?4,
       fail_reason = ?5,
       num_dependent_backups = ?6,
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = ?7
   AND deleted = 0
   AND status IS ?8
   AND host IS ?9
   AND availability_zone IS ?10
   AND service IS ?11
   AND volume_id IS ?12
   AND size IS ?13
   AND object_count IS ?14
   AND container IS ?15
   AND service_metadata IS ?16
   AND fail_reason IS ?17
   AND updated_at IS ?18
   AND parent_id IS ?19
   AND temp_volume_id IS ?20
   AND temp_snapshot_id IS ?21
   AND num_dependent_backups IS ?22
   AND snapshot_id IS ?23
   AND restore_volume_id IS ?24;
