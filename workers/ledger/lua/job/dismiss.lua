-- Dismiss a job that failed: nobody will repair it. Or take that back.
--
-- The state of the job stays. Who notifies forgets the job, so that nothing more is told of it.
--
-- KEYS: job, jobs that are not notified yet, problems that were notified
-- ARGV: job id, '1' to dismiss, '0' to take it back, who, why
-- Returns: the state of the job, '' if it is unknown
-- Atomic: the record could expire between the check and the write, and half a record must not stay.
-- Uses: lib_now

local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'failed' then return state or '' end
-- A full Redis refuses the first write of a script if it needs memory, but no later write. This first write needs
-- none, so an operator's request succeeds.
redis.call('HDEL', KEYS[1], '-')
if ARGV[2] == '1' then
  redis.call('HSET', KEYS[1], 'dismissed_at', now(), 'dismissed_by', ARGV[3], 'dismissed_why', ARGV[4])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], 'job:' .. ARGV[1])
else
  redis.call('HDEL', KEYS[1], 'dismissed_at', 'dismissed_by', 'dismissed_why')
end
return state
