-- volume_by_id_juno: reads one live volume by primary key without a lock, for dry runs and to check the result (before Liberty).
SELECT id, status, attach_status, size, display_name, project_id, CAST(created_at AS CHAR) AS created_at,
       CAST(updated_at AS CHAR) AS updated_at, NULL AS previous_status
  FROM volumes
 WHERE id = ?
   AND deleted = 0;
