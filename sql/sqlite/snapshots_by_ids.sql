-- snapshots_by_ids: reads live snapshots by a list of primary keys.
-- The + keeps SQLite from using the index on deleted and project, through which each list would read all live rows.
SELECT id, status, volume_id, display_name, project_id, created_at, updated_at
  FROM snapshots
 WHERE id IN (SELECT value FROM json_each(?1))
   AND +deleted = 0;
