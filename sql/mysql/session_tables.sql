-- session_tables: reads the tables to change whose engine has no transactions, and where a change could not be rolled back.
SELECT t.table_name, t.engine
  FROM information_schema.tables AS t
  JOIN information_schema.engines AS e ON e.engine = t.engine
 WHERE t.table_schema = DATABASE()
   AND t.table_name IN ('backups', 'volumes', 'snapshots')
   AND e.transactions <> 'YES';
