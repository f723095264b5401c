-- backups_live_mitaka: every backup that is not deleted, in one pass over the table (Mitaka and later).
-- Most rows of an old table are deleted ones; the rest arrive one by one and are not kept.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, service_metadata,
       fail_reason, to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.US') AS created_at,
       to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS.US') AS updated_at, parent_id, temp_volume_id,
       temp_snapshot_id, num_dependent_backups, snapshot_id, restore_volume_id
  FROM backups
 WHERE deleted = FALSE;
