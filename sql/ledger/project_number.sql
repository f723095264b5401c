-- project_number: reads the number of a project.
SELECT number FROM projects WHERE id = ?1;
