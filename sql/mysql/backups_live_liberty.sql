-- backups_live_liberty: every backup that is not deleted, in one pass over the table (Liberty and later).
-- Most rows of an old table are deleted ones; the rest arrive one by one. Only what is counted: of the few that are to be
-- kept, the rest of the row is read by their ids.
SELECT id, status, host, volume_id, display_name, project_id, size, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups
  FROM backups
 WHERE deleted = 0;
