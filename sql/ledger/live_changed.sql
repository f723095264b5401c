-- live_changed: updates the backups whose status or parent has changed, or that are live again.
UPDATE backups SET status = live.status, parent_id = live.parent_id, gone_at = NULL
  FROM live
 WHERE live.id = backups.id
   AND (backups.status IS NOT live.status OR backups.parent_id IS NOT live.parent_id OR backups.gone_at IS NOT NULL);
