-- result_remove: removes the result of a backup that is intact again, or is not pending any more.
DELETE FROM results WHERE backup = ?1;
