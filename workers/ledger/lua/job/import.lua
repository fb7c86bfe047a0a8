-- Create the record of a job that ended elsewhere, or before Redis lost its data, unless the record exists.
--
-- The job is in no set of open or ended jobs: nothing drives it, and nobody is notified of its end.
--
-- KEYS: job, index of all jobs
-- ARGV: job id, seconds until the record expires, time of the submission, then field-value pairs
-- Returns: 1 if the record is new, 0 if it existed
-- Atomic: an import that is repeated must not change a record, and no job may be missing in the list.

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
