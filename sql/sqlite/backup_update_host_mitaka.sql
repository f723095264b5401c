-- backup_update_host_mitaka: moves one backup to another host if the row is as planned (Mitaka and later).
-- Parameters: the host, its zone, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE backups
   SET host = ?1,
       availability_zone = ?2,
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = ?3
   AND deleted = 0
   AND status IS ?4
   AND host IS ?5
   AND availability_zone IS ?6
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
