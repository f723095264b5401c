-- session_holders_mysql: reads which connections hold row locks that sessions of this account wait for in this database. Needs the
-- privileges PROCESS and SELECT on performance_schema. Sessions of this account that wait themselves are left out.
SELECT DISTINCT CONCAT('connection ', b.processlist_id), b.processlist_user, NULL, b.processlist_host,
       CONCAT(CONVERT_TZ(x.trx_started, 'SYSTEM', '+00:00'), ' UTC')
  FROM performance_schema.data_lock_waits AS w
  JOIN performance_schema.threads AS r ON r.thread_id = w.requesting_thread_id
  JOIN performance_schema.threads AS b ON b.thread_id = w.blocking_thread_id
  LEFT JOIN information_schema.innodb_trx AS x ON x.trx_id = w.blocking_engine_transaction_id
 WHERE r.processlist_user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)
   AND r.processlist_db = DATABASE()
   AND NOT COALESCE(x.trx_state = 'LOCK WAIT' AND b.processlist_user = r.processlist_user AND b.processlist_db = r.processlist_db, FALSE);
