-- Remove jobs from the lists of jobs whose records have expired.
--
-- KEYS: index of all jobs, set of open jobs, then the jobs
-- ARGV: the ids of the jobs
-- Returns: how many were removed
-- Atomic: a job could be submitted under its old id between the check and the removal.

local removed = 0
for i = 1, #ARGV do
  if redis.call('EXISTS', KEYS[2 + i]) == 0 then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('SREM', KEYS[2], ARGV[i])
  end
end
return removed
