-- backup_update_juno: changes one backup if the row is as planned (Icehouse, Juno and Kilo).
-- Parameters: the new values, the id, then every guarded column as it was read. Columns that do not change are set to their old value.
-- Exactly one row must match.
UPDATE backups
   SET status = ?1,
       size = ?2,
       object_count = ?3,
       service_metadata = ?4,
       fail_reason = ?5,
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = ?6
   AND deleted = 0
   AND status IS ?7
   AND host IS ?8
   AND availability_zone IS ?9
   AND service IS ?10
   AND volume_id IS ?11
   AND size IS ?12
   AND object_count IS ?13
   AND container IS ?14
   AND service_metadata IS ?15
   AND fail_reason IS ?16
   AND updated_at IS ?17;
