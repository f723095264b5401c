-- snapshot_update: changes the status of one snapshot if the row is as planned.
-- Parameters: the new status, the id, then every guarded column as it was read. Exactly one row must match.
UPDATE snapshots
   SET status = ?1,
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = ?2
   AND deleted = 0
   AND status IS ?3
   AND volume_id IS ?4
   AND updated_at IS ?5;
