-- run_one: one run.
SELECT number, started_at, ended_at, level, due, intact, failed, rotted, limited, unanswered, bytes, stopped_by
  FROM runs WHERE number = ?1;
