-- live_add: adds a live backup. OR REPLACE would copy a page for each row.
INSERT OR IGNORE INTO live (id, parent_id, status, wanted) VALUES (?1, ?2, ?3, ?4);
