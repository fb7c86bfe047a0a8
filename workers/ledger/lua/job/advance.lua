-- Move a job to a state and set fields of its record.
--
-- A step that is delivered late does not move the job back: then nothing changes. The only way back leads from
-- committing to copying, to copy missing objects again.
--
-- A job that ends is queued for whoever looks after schedules and notifications, in a list of bounded length.
--
-- KEYS: set of open jobs, jobs that have ended, job, the other keys of the job
-- ARGV: job id, seconds until the keys expire, the most ended jobs that are kept, state, then field-value pairs
-- Returns: 1 if the job has not ended, 0 if it has ended or is unknown
-- Atomic: a final state never changes, however many steps run at the same time, and no end of a job is overlooked.
-- Uses: lib_now, lib_final

local rank = {queued = 0, planning = 1, copying = 2, committing = 3, done = 4, failed = 4, cancelled = 4}
local state = redis.call('HGET', KEYS[3], 'state')
if not state or final(state) then return 0 end
local heals = state == 'committing' and ARGV[4] == 'copying'
if rank[ARGV[4]] < rank[state] and not heals then return 1 end
local at = now()
redis.call('HSET', KEYS[3], 'state', ARGV[4], 'moved_at', at)
if ARGV[4] == 'planning' then redis.call('HSETNX', KEYS[3], 'started_at', at) end
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
if final(ARGV[4]) then
  redis.call('HSET', KEYS[3], 'ended_at', at)
  redis.call('SREM', KEYS[1], ARGV[1])
  redis.call('ZADD', KEYS[2], at, ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[3])
end
for i = 3, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
