-- volume_update_liberty: changes the status of one volume if the row is as planned (Liberty and later).
-- Parameters: the new status, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE volumes
   SET status = ?1,
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = ?2
   AND deleted = 0
   AND status IS ?3
   AND attach_status IS ?4
   AND updated_at IS ?5
   AND previous_status IS ?6;
