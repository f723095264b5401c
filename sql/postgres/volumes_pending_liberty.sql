-- volumes_pending_liberty: live volumes that a backup or a restore holds, or whose status was lost (Liberty and later).
SELECT id, status, attach_status, size, display_name, project_id,
       to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') AS created_at,
       to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') AS updated_at, previous_status
  FROM volumes
 WHERE deleted = FALSE
   AND (status IN ('backing-up', 'restoring-backup') OR status IS NULL);
