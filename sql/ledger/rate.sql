-- rate: what the runs since a time did at this level or deeper, and when the first of them began.
SELECT min(started_at), sum(intact + failed + limited), sum(bytes) FROM runs WHERE started_at >= ?1 AND level >= ?2;
