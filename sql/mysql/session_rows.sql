-- session_rows: makes every SELECT and SHOW return all rows, whatever the default limit of the server. A row that was left out would look
-- missing, and a volume that a backup uses would look free. Runs before any other statement.
SET SESSION sql_select_limit = 18446744073709551615;
