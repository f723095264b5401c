-- live_add: adds a live backup if the ledger knows it as it is. One without a back end may have got one.
INSERT OR IGNORE INTO live (number, wanted)
SELECT number, ?4 FROM backups
 WHERE id = ?1 AND parent_id IS ?2 AND status IS ?3 AND backend IS NOT NULL AND gone_at IS NULL;
