-- live_add: adds a live backup if its row in the ledger is up to date. A row without a back end is not: the backup may have one now.
INSERT OR IGNORE INTO live (number, wanted)
SELECT number, ?4 FROM backups
 WHERE id = ?1 AND parent_id IS ?2 AND status IS ?3 AND backend IS NOT NULL AND gone_at IS NULL;
