-- Set the limits of a job that has not ended.
--
-- KEYS: job's record
-- ARGV: field-value pairs, '' as value to remove a limit
-- Returns: the state of the job, '' if it is unknown
-- Atomic: the job could end or expire between the check and the write, and its record must then stay as it is.

local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
if state == 'done' or state == 'failed' or state == 'cancelled' then return state end
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return state
