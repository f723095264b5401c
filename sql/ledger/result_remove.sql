-- result_remove: removes the result of a backup that is intact again, or is no longer pending.
DELETE FROM results WHERE backup = ?1;
