-- live_unknown: the next live backups after an id, of those that are new to the ledger, have no back end in it or have changed their
-- status. All columns of these are read by their ids.
SELECT live.id FROM live LEFT JOIN backups ON backups.id = live.id
 WHERE live.id > ?1 AND (backups.id IS NULL OR backups.backend IS NULL OR backups.status IS NOT live.status)
 ORDER BY live.id
 LIMIT ?2;
