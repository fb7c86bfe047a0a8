-- Renew the lease of the driver of a job.
--
-- KEYS: driver
-- ARGV: holder, seconds of the lease
-- Returns: 1, 0 if the holder does not drive the job
-- Atomic: the lease could go to another orchestrator between the check and the write.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
