-- session_user: reads the account that the server uses for this session, and the current database.
SELECT CURRENT_USER(), DATABASE();
