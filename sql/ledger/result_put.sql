-- result_put: keeps a result.
INSERT OR REPLACE INTO results
       (backup, run, failed, verdict, level, status, first_at, found_at, good_at, problem, settle, document)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12);
