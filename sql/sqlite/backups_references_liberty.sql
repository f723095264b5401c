-- backups_references_liberty: reads what every live backup refers to, in one pass over the table (Liberty).
-- None of these columns has an index, so one pass answers for all volumes, snapshots and parents at once.
SELECT id, volume_id, parent_id
  FROM backups
 WHERE deleted = 0;
