-- run_begin: adds a run.
INSERT INTO runs (started_at, level) VALUES (?1, ?2);
