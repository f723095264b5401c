-- left_out_create: a temporary table for back ends that do not answer, and that the rest of a run leaves out.
CREATE TEMP TABLE left_out (backend INTEGER PRIMARY KEY);
