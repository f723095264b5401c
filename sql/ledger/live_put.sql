-- live_put: adds the live backups whose rows the ledger has now.
INSERT OR IGNORE INTO live (number, wanted)
SELECT backups.number, unknown.wanted FROM unknown JOIN backups ON backups.id = unknown.id;
