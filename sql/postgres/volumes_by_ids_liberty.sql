-- volumes_by_ids_liberty: live volumes by a list of ids (Liberty and later).
SELECT id, status, attach_status, size, display_name, project_id,
       to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') AS created_at,
       to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') AS updated_at, previous_status
  FROM volumes
 WHERE id = ANY(CAST($1 AS text[]))
   AND deleted = FALSE;
