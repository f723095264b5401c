-- session_tables: tables to be changed whose engine knows no transactions: what was written to them could not be taken back.
SELECT t.table_name, t.engine
  FROM information_schema.tables AS t
  JOIN information_schema.engines AS e ON e.engine = t.engine
 WHERE t.table_schema = DATABASE()
   AND t.table_name IN ('backups', 'volumes', 'snapshots')
   AND e.transactions <> 'YES';
