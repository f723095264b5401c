-- backups_references_liberty: reads what every live backup refers to, in one pass over the table (Liberty).
-- Of these columns only id has an index, so one pass finds the backups of all volumes and parents at once.
SELECT id, volume_id, parent_id
  FROM backups
 WHERE deleted = 0;
