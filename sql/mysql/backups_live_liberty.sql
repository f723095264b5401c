-- backups_live_liberty: reads every live backup, in one pass over the table (Liberty and later).
-- Most rows of an old table are deleted; only the live ones are sent, and only the columns that the census needs. Rows that it keeps are
-- read completely by their ids.
SELECT id, status, host, volume_id, display_name, project_id, size, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups
  FROM backups
 WHERE deleted = 0;
