-- backups_live_liberty: every backup that is not deleted, in one pass over the table (Liberty).
-- Most rows of an old table are deleted ones; the rest arrive one by one and are not kept.
SELECT id, status, host, service, volume_id, display_name, project_id, size, object_count, service_metadata,
       fail_reason, created_at, updated_at, parent_id, temp_volume_id, temp_snapshot_id,
       num_dependent_backups, NULL AS snapshot_id, NULL AS restore_volume_id
  FROM backups
 WHERE deleted = 0;
