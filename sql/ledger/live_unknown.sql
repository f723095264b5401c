-- live_unknown: reads the next backups whose rows must be read, after a place.
SELECT rowid, id FROM unknown WHERE rowid > ?1 ORDER BY rowid LIMIT ?2;
