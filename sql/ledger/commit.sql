-- commit: makes the changes of a transaction permanent.
COMMIT;
