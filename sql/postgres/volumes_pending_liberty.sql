-- volumes_pending_liberty: reads the live volumes that are being backed up or restored, or whose status is NULL (Liberty and later).
SELECT id, status, attach_status, size, display_name, project_id,
       CASE WHEN created_at >= '0001-01-01' AND isfinite(created_at)
            THEN to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(created_at AS text) END AS created_at,
       CASE WHEN updated_at >= '0001-01-01' AND isfinite(updated_at)
            THEN to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') ELSE CAST(updated_at AS text) END AS updated_at,
       previous_status
  FROM volumes
 WHERE deleted = FALSE
   AND (status IN ('backing-up', 'restoring-backup') OR status IS NULL);
