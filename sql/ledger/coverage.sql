-- coverage: how many restore points of each project in each back end were verified since a time, at which level. ?2 is the level at
-- which a backup counts as verified for the age of the oldest one that is not.
SELECT backends.driver, backends.container, projects.id, count(*), sum(backups.bytes),
       count(*) FILTER (WHERE results.backup IS NULL AND quick_at >= ?1),
       count(*) FILTER (WHERE results.backup IS NULL AND deep_at >= ?1),
       count(*) FILTER (WHERE results.backup IS NULL AND restore_at >= ?1),
       count(*) FILTER (WHERE results.backup IS NOT NULL),
       count(*) FILTER (WHERE quick_at IS NULL AND results.backup IS NULL AND limited_at IS NULL),
       count(*) FILTER (WHERE limited_at IS NOT NULL),
       count(*) FILTER (WHERE unanswered_at IS NOT NULL),
       total(backups.bytes) FILTER (WHERE results.backup IS NULL
                                      AND CASE ?2 WHEN 0 THEN quick_at WHEN 1 THEN deep_at ELSE restore_at END >= ?1),
       min(backups.created_at) FILTER (WHERE results.backup IS NOT NULL
                                          OR coalesce(CASE ?2 WHEN 0 THEN quick_at WHEN 1 THEN deep_at ELSE restore_at END, 0) < ?1)
  FROM backups
  LEFT JOIN backends ON backends.number = backups.backend
  LEFT JOIN projects ON projects.number = backups.project
  LEFT JOIN results ON results.backup = backups.number AND results.failed = 1
 WHERE backups.gone_at IS NULL AND backups.status IN ('available', 'restoring')
 GROUP BY backups.backend, backups.project;
