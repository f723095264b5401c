-- meanwhile: sets the retired host's backup to error, as a colleague may do by hand between a plan and its apply.
UPDATE backups
   SET status = 'error',
       fail_reason = 'ctl0 is gone, set to error by hand',
       updated_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id = 'a2d8f614-c09e-4b57-8d31-f5e7b9a4c063';
