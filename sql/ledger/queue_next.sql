-- queue_next: the queue after a place, without the back ends that are left out.
SELECT queue.place, queue.number, queue.chain, backups.id, backups.bytes, backups.backend
  FROM queue JOIN backups USING (number)
 WHERE queue.place > ?1 AND (backups.backend IS NULL OR backups.backend NOT IN (SELECT backend FROM left_out))
 ORDER BY queue.place;
