-- durability: reads how this connection waits for the disk: 0 not at all, 1 not at each commit of a write-ahead log, 2 and 3 at each commit.
SELECT 'synchronous', CAST(synchronous AS TEXT)
  FROM pragma_synchronous;
