-- session_rows: a SELECT or a SHOW gives all of its rows, whatever limit the server has for those that ask for none: what it left
-- out would look as if it were not there, and a volume free that a backup holds. Before anything is asked.
SET SESSION sql_select_limit = 18446744073709551615;
