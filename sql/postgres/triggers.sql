-- triggers: reads the triggers on the tables that a repair changes, each with its table. A trigger runs in the transaction of a repair.
SELECT CAST(t.tgname AS text), CAST(c.relname AS text)
  FROM pg_catalog.pg_trigger AS t
  JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
 WHERE NOT t.tgisinternal
   AND c.oid IN (to_regclass('backups'), to_regclass('volumes'), to_regclass('snapshots'), to_regclass('backup_metadata'),
                 to_regclass('quota_usages'), to_regclass('reservations'))
 ORDER BY t.tgname;
