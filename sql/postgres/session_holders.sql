-- session_holders: reads which sessions hold locks that this program's sessions on this account wait for. Without pg_read_all_stats, the
-- address and the time are known only for sessions of the same account.
SELECT DISTINCT
       'process ' || h.pid,
       CAST(h.usename AS text),
       h.application_name,
       CAST(h.client_addr AS text),
       to_char(timezone('UTC', h.xact_start), 'YYYY-MM-DD HH24:MI:SS "UTC"')
  FROM pg_stat_activity AS w
  JOIN pg_stat_activity AS h ON h.pid = ANY (pg_blocking_pids(w.pid))
 WHERE w.usename = current_user
   AND w.datname = current_database()
   AND w.application_name = current_setting('application_name');
