-- left_out_add: leaves out a back end for the rest of a run.
INSERT OR IGNORE INTO left_out (backend) VALUES (?1);
