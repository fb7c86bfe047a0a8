-- Create the record of a job, unless it exists.
--
-- A job that continues another one is linked from that one's record, in place of an earlier continuation. It also notes the
-- mirror or scrub that queued the first job of the chain.
--
-- KEYS: job, index of all jobs, set of open jobs, the job that it continues (left out for none)
-- ARGV: job id, seconds until the record expires, then field-value pairs
-- Returns: 1 if the record is new, 0 if it existed
-- Atomic: a submission that is repeated must not reset a job that has moved on, and no job may be missing in the lists.
-- Uses: lib_now

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local at = now()
redis.call('HSET', KEYS[1], 'state', 'queued', 'submitted_at', at, 'moved_at', at)
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], at, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
if KEYS[4] and redis.call('EXISTS', KEYS[4]) == 1 then
  local before = redis.call('HGET', KEYS[4], 'continued_by')
  if before then redis.call('HSET', KEYS[1], 'continued_before', before) end
  redis.call('HSET', KEYS[4], 'continued_by', ARGV[1])
  local schedule = redis.call('HGET', KEYS[4], 'schedule') or redis.call('HGET', KEYS[4], 'chain_schedule')
  if schedule then redis.call('HSET', KEYS[1], 'chain_schedule', schedule) end
end
return 1
