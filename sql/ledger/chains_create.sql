-- chains_create: a temporary table with the parent of each backup that has no chain yet. A backup without a parent begins a chain.
CREATE TEMP TABLE unlinked (
    number      INTEGER PRIMARY KEY,
    parent      INTEGER NOT NULL
);
INSERT INTO unlinked (number, parent)
SELECT backups.number, parent.number FROM backups JOIN backups AS parent ON parent.id = backups.parent_id
 WHERE backups.chain = 0;
CREATE INDEX temp.unlinked_by_parent ON unlinked (parent);
UPDATE backups SET chain = number WHERE chain = 0 AND number NOT IN (SELECT number FROM unlinked);
