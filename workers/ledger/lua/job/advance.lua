-- Move a job to a state and set fields of its record.
--
-- A step that is delivered late does not move the job back: then nothing changes. The only way back leads from
-- committing to copying, to copy missing objects again.
--
-- KEYS: set of open jobs, job, the other keys of the job
-- ARGV: job id, seconds until the keys expire, state, then field-value pairs
-- Returns: 1 if the job has not ended, 0 if it has ended or is unknown
-- Atomic: a final state never changes, however many steps run at the same time.
-- Uses: lib_now, lib_final

local rank = {queued = 0, planning = 1, copying = 2, committing = 3, done = 4, failed = 4, cancelled = 4}
local state = redis.call('HGET', KEYS[2], 'state')
if not state or final(state) then return 0 end
local heals = state == 'committing' and ARGV[3] == 'copying'
if rank[ARGV[3]] < rank[state] and not heals then return 1 end
local at = now()
redis.call('HSET', KEYS[2], 'state', ARGV[3], 'moved_at', at)
if ARGV[3] == 'planning' then redis.call('HSETNX', KEYS[2], 'started_at', at) end
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
if final(ARGV[3]) then
  redis.call('HSET', KEYS[2], 'ended_at', at)
  redis.call('SREM', KEYS[1], ARGV[1])
end
for i = 2, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
