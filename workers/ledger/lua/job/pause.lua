-- Pause or resume a job that has not ended.
--
-- KEYS: job
-- ARGV: '1' to pause, '0' to resume
-- Returns: the state of the job, '' if it is unknown
-- Atomic: the job could end between the check and the write, and its record must then stay as it is.
-- Uses: lib_now, lib_final

local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) then return state or '' end
-- A full Redis refuses the first write of a script if it needs memory, but no later write. This first write needs
-- none, so an operator's request succeeds.
redis.call('HDEL', KEYS[1], '-')
local at = now()
if ARGV[1] == '1' then
  if redis.call('HSETNX', KEYS[1], 'paused', '1') == 1 then
    redis.call('HSET', KEYS[1], 'paused_at', string.format('%.6f', at))
  end
elseif redis.call('HDEL', KEYS[1], 'paused') == 1 then
  -- Nor against its speed, by which the time left is told.
  local times = redis.call('HMGET', KEYS[1], 'paused_at', 'started_at', 'halted_s')
  local from = math.max(tonumber(times[1]) or at, tonumber(times[2]) or at)
  local halted = (tonumber(times[3]) or 0) + math.max(0, at - from)
  redis.call('HSET', KEYS[1], 'halted_s', string.format('%.6f', halted))
  redis.call('HDEL', KEYS[1], 'paused_at')
  -- The time of a pause does not count against the job's patience.
  redis.call('HDEL', KEYS[1], 'waits', 'flaps', 'given_up', 'step_waits')
end
redis.call('HSET', KEYS[1], 'moved_at', at)
return state
