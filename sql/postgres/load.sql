-- load: reads how many sessions run a statement, with this one. Those of other accounts count only for a member of pg_monitor.
SELECT 'Threads_running', count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend';
