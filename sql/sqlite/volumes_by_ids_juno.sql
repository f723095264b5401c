-- volumes_by_ids_juno: reads live volumes by a list of primary keys (before Liberty).
-- The + keeps SQLite from using the index on deleted and project, through which each list would read all live rows.
SELECT id, status, attach_status, size, display_name, project_id, created_at, updated_at,
       NULL AS previous_status
  FROM volumes
 WHERE id IN (SELECT value FROM json_each(?1))
   AND +deleted = 0;
