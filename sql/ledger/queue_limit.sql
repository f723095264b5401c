-- queue_limit: keeps the first places of the queue.
DELETE FROM queue WHERE place > ?1;
