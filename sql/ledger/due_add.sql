-- due_add: adds a backup that is due.
INSERT INTO due (number, chain, urgency, created_at) VALUES (?1, ?2, ?3, ?4);
