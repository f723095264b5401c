-- failures: the backups that failed, the latest first; only those of one run if it is not NULL.
SELECT backups.id, projects.id, backends.driver, backends.container, results.verdict, results.level, results.first_at, results.found_at,
       results.good_at, results.problem
  FROM results
  JOIN backups ON backups.number = results.backup
  LEFT JOIN projects ON projects.number = backups.project
  LEFT JOIN backends ON backends.number = backups.backend
 WHERE results.failed = 1 AND backups.gone_at IS NULL AND (?1 IS NULL OR results.run = ?1)
 ORDER BY results.found_at DESC, backups.id
 LIMIT ?2;
