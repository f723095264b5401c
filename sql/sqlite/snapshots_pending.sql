-- snapshots_pending: live snapshots that a backup holds.
SELECT id, status, volume_id, display_name, project_id, created_at, updated_at
  FROM snapshots
 WHERE deleted = 0
   AND status = 'backing-up';
