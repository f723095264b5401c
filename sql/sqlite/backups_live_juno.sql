-- backups_live_juno: every backup that is not deleted, in one pass over the table (Icehouse, Juno and Kilo).
-- Most rows of an old table are deleted ones; the rest arrive one by one. Only what is counted: of the few that are to be
-- kept, the rest of the row is read by their ids.
SELECT id, status, host, volume_id, display_name, project_id, size, NULL AS parent_id, NULL AS temp_volume_id,
       NULL AS temp_snapshot_id, NULL AS num_dependent_backups
  FROM backups
 WHERE deleted = 0;
