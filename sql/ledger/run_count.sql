-- run_count: counts a result of a run.
UPDATE runs
   SET intact = intact + ?2, failed = failed + ?3, rotted = rotted + ?4, limited = limited + ?5, unanswered = unanswered + ?6,
       bytes = bytes + ?7
 WHERE number = ?1;
