-- live_unknown: the next live backups after an id that the ledger does not know, or whose place or status has changed. All columns of
-- these are read by their ids.
SELECT live.id FROM live LEFT JOIN backups ON backups.id = live.id
 WHERE live.id > ?1 AND (backups.id IS NULL OR backups.backend IS NULL OR backups.status IS NOT live.status)
 ORDER BY live.id
 LIMIT ?2;
