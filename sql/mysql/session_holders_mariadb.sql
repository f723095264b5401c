-- session_holders_mariadb: reads which connections hold row locks that sessions of this account wait for in this database. Needs the
-- privilege PROCESS. Sessions of this account that wait themselves are left out.
SELECT DISTINCT CONCAT('connection ', b.trx_mysql_thread_id), p.user, NULL, p.host,
       CONCAT(CONVERT_TZ(b.trx_started, 'SYSTEM', '+00:00'), ' UTC')
  FROM information_schema.innodb_lock_waits AS w
  JOIN information_schema.innodb_trx AS r ON r.trx_id = w.requesting_trx_id
  JOIN information_schema.innodb_trx AS b ON b.trx_id = w.blocking_trx_id
  LEFT JOIN information_schema.processlist AS p ON p.id = b.trx_mysql_thread_id
 WHERE r.trx_mysql_thread_id IN
           (SELECT id FROM information_schema.processlist WHERE user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AND db = DATABASE())
   AND NOT (b.trx_state = 'LOCK WAIT'
            AND b.trx_mysql_thread_id IN
                    (SELECT id FROM information_schema.processlist WHERE user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AND db = DATABASE()));
