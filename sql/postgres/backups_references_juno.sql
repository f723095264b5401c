-- backups_references_juno: reads what every live backup refers to, in one pass over the table (Icehouse, Juno and Kilo).
-- Of these columns only id has an index, so one pass finds the backups of all volumes at once.
SELECT id, volume_id
  FROM backups
 WHERE deleted = FALSE;
