-- Cancel a job: at once if no orchestrator has begun it, else by a mark that workers and orchestrators look for.
--
-- KEYS: job, set of open jobs
-- ARGV: job id
-- Returns: the state of the job, '' if it is unknown
-- Atomic: an orchestrator could begin the job, or end it, between the check and the write.
-- Uses: lib_now, lib_final

local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
if final(state) then return state end
-- A full Redis refuses the first write of a script if it needs memory, but no later write. This first write needs
-- none, so an operator's request succeeds.
redis.call('HDEL', KEYS[1], '-')
redis.call('HSET', KEYS[1], 'cancel', '1')
if state == 'queued' then
  redis.call('HSET', KEYS[1], 'state', 'cancelled', 'ended_at', now())
  redis.call('SREM', KEYS[2], ARGV[1])
  return 'cancelled'
end
return state
