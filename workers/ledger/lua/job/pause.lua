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
  -- A second request does not begin another pause.
  if redis.call('HSETNX', KEYS[1], 'paused', '1') == 0 then return state end
  redis.call('HSET', KEYS[1], 'paused_at', string.format('%.6f', at))
elseif redis.call('HDEL', KEYS[1], 'paused') == 1 then
  -- The time of a pause, and of a wait that it ends, does not count against the job's speed: see `halted_at` of
  -- queries.py.
  local times = redis.call('HMGET', KEYS[1], 'paused_at', 'moved_at', 'started_at', 'waits', 'step_waits')
  local from = math.max(tonumber(times[1]) or 0, tonumber(times[2]) or at)
  for i = 4, 5 do
    local read, wait = pcall(cjson.decode, times[i])
    from = math.min(from, read and type(wait) == 'table' and tonumber(wait.since) or from)
  end
  local halted = at - math.max(from, tonumber(times[3]) or at)
  if halted > 0 then
    local before = tonumber(redis.call('HGET', KEYS[1], 'halted_s') or '') or 0
    redis.call('HSET', KEYS[1], 'halted_s', string.format('%.6f', before + halted))
  end
  redis.call('HDEL', KEYS[1], 'paused_at')
  -- Nor against the job's patience.
  redis.call('HDEL', KEYS[1], 'waits', 'flaps', 'given_up', 'step_waits')
end
redis.call('HSET', KEYS[1], 'moved_at', at)
return state
