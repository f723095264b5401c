-- application_id: the mark of a ledger (CBLR in ASCII); 0 in a file without one.
PRAGMA application_id;
