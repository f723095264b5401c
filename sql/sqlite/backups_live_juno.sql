-- backups_live_juno: reads every live backup, in one pass over the table (Icehouse, Juno and Kilo).
-- Most rows of an old table are deleted; only the live ones are sent, and only the columns that the census needs. Rows that it keeps are
-- read completely by their ids.
SELECT id, status, host, volume_id, display_name, project_id, size, NULL AS parent_id, NULL AS temp_volume_id,
       NULL AS temp_snapshot_id, NULL AS num_dependent_backups
  FROM backups
 WHERE deleted = 0;
