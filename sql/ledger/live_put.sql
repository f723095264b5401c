-- live_put: adds the live backups whose rows were brought up to date.
INSERT OR IGNORE INTO live (number, wanted)
SELECT backups.number, unknown.wanted FROM unknown JOIN backups ON backups.id = unknown.id;
