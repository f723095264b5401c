-- volumes_pending_liberty: reads the live volumes that are being backed up or restored, or whose status is NULL (Liberty and later).
SELECT id, status, attach_status, size, display_name, project_id, created_at, updated_at, previous_status
  FROM volumes
 WHERE deleted = 0
   AND (status IN ('backing-up', 'restoring-backup') OR status IS NULL);
