-- session_user: reads the account that the server uses for this session, the current database, and the id of the connection. A proxy may
-- answer CONNECTION_ID() by itself.
SELECT CURRENT_USER(), DATABASE(), @@session.pseudo_thread_id;
