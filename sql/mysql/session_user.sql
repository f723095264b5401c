-- session_user: the account that the server took this session for, and the database that it works in.
SELECT CURRENT_USER(), DATABASE();
