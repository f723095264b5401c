-- backend_number: reads the number of a back end.
SELECT number FROM backends WHERE driver = ?1 AND container = ?2;
