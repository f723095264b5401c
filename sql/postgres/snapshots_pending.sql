-- snapshots_pending: live snapshots that a backup holds.
SELECT id, status, volume_id, display_name, project_id,
       to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') AS created_at,
       to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') AS updated_at
  FROM snapshots
 WHERE deleted = FALSE
   AND status = 'backing-up';
