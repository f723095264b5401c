-- live_add: adds a live backup.
INSERT OR REPLACE INTO live (id, parent_id, status, wanted) VALUES (?1, ?2, ?3, ?4);
