-- triggers: reads the triggers on the tables that a repair changes, each with its table. A trigger runs in the transaction of a repair.
SELECT name, tbl_name
  FROM sqlite_master
 WHERE type = 'trigger'
   AND tbl_name IN ('backups', 'volumes', 'snapshots', 'backup_metadata', 'quota_usages', 'reservations')
 ORDER BY name;
