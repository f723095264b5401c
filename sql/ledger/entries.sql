-- entries: the selected live backups, with what the order of a run depends on.
SELECT backups.number, backups.chain, backups.created_at, backups.quick_at, backups.deep_at, backups.restore_at,
       backups.limited_at, backups.limited_level, backups.unanswered_at, results.found_at, results.level
  FROM live
  JOIN backups ON backups.number = live.number
  LEFT JOIN results ON results.backup = backups.number AND results.failed = 1
 WHERE live.wanted = 1;
