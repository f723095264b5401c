-- backend_add: adds a back end.
INSERT OR IGNORE INTO backends (driver, container) VALUES (?1, ?2);
