-- unread_sort: sorts the backups whose rows must be read by their ids. In this order the ledger grows at its end.
CREATE TEMP TABLE unknown AS SELECT id, wanted FROM unread ORDER BY id;
