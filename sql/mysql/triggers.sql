-- triggers: reads the triggers on the tables that a repair changes, each with its table. A trigger runs in the transaction of a repair.
-- The server shows only those of tables on which the account has the privilege TRIGGER.
SELECT trigger_name, event_object_table
  FROM information_schema.triggers
 WHERE event_object_schema = DATABASE()
   AND event_object_table IN ('backups', 'volumes', 'snapshots', 'backup_metadata', 'quota_usages', 'reservations')
 ORDER BY trigger_name;
