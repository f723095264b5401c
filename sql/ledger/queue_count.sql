-- queue_count: how many backups are due.
SELECT count(*) FROM queue;
