-- volumes_pending_juno: reads the live volumes that are being backed up or restored, or whose status is NULL (before Liberty).
SELECT id, status, attach_status, size, display_name, project_id, created_at, updated_at,
       NULL AS previous_status
  FROM volumes
 WHERE deleted = 0
   AND (status IN ('backing-up', 'restoring-backup') OR status IS NULL);
