-- unread_sort: brings the backups whose rows must be read into the order of their ids. In this order the ledger grows at its end.
CREATE TEMP TABLE unknown AS SELECT id, wanted FROM unread ORDER BY id;
