-- queue_create: puts the due backups in their order: chains by their most urgent member, the members of a chain by their age.
CREATE TEMP TABLE queue (
    place       INTEGER PRIMARY KEY,
    number      INTEGER NOT NULL,
    chain       INTEGER NOT NULL
);
INSERT INTO queue (number, chain)
SELECT due.number, due.chain
  FROM due
  JOIN (SELECT chain, min(urgency) AS urgency FROM due GROUP BY chain) AS chains ON chains.chain = due.chain
 ORDER BY chains.urgency, due.chain, due.created_at, due.number;
