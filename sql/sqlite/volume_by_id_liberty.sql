-- volume_by_id_liberty: one live volume, without a lock: for dry runs and for reading back (Liberty and later).
SELECT id, status, attach_status, size, display_name, project_id, created_at, updated_at, previous_status
  FROM volumes
 WHERE id = ?1
   AND deleted = 0;
