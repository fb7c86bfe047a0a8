-- Remove the record of a job that no orchestrator has begun.
--
-- KEYS: job, index of all jobs, set of open jobs, the job that it continues (left out for none)
-- ARGV: job id
-- Returns: 1 if there is no record any more, 0 if the job was begun
-- Atomic: an orchestrator could begin the job between the check and the removal.

local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'queued' then return 0 end
if KEYS[4] and redis.call('HGET', KEYS[4], 'continued_by') == ARGV[1] then
  local before = redis.call('HGET', KEYS[1], 'continued_before')
  if before then redis.call('HSET', KEYS[4], 'continued_by', before)
  else redis.call('HDEL', KEYS[4], 'continued_by') end
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
