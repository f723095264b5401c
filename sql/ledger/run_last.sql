-- run_last: the last run.
SELECT number, started_at, ended_at, level, due, intact, failed, rotted, limited, unanswered, bytes, stopped_by
  FROM runs ORDER BY number DESC LIMIT 1;
