-- queue_index: finds a place in the queue.
CREATE UNIQUE INDEX temp.queue_by_place ON queue (place);
