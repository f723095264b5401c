-- snapshots_pending: reads the live snapshots that are being backed up.
SELECT id, status, volume_id, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at
  FROM snapshots
 WHERE deleted = 0
   AND status = 'backing-up';
