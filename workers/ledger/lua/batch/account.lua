-- Count the end of a batch: once, however often the batch is delivered.
--
-- KEYS: job, done, running, failures, needed, copied, failed, classes, begun, alone, moves
-- ARGV: number, name, '1' if the batch is one of the plan ('0': it heals), objects, bytes by the plan, objects copied,
--       bytes copied, bytes that this run found missing, seconds until the keys expire, length limit of the list of
--       failures, number of failed objects, bytes read for checksums, when the job of the run was submitted, then the
--       positions of the failed objects, their error classes, and their records
-- Returns: 1, 0 if the batch was counted before, or the job has ended or is not that of the run
-- Atomic: the mark of the batch and all counters move together, so no count is lost or made twice.
-- Uses: lib_now, lib_stopped, lib_same_job

local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) or not same_job(KEYS[1], ARGV[13]) then return 0 end
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[9], ARGV[2], ARGV[2] .. '#lost')
redis.call('HDEL', KEYS[10], ARGV[2])
redis.call('HDEL', KEYS[11], ARGV[2])
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return 0 end
local failed = tonumber(ARGV[11])
local new, unsaid = 0, 0
for i = 14, 13 + failed do
  if redis.call('SETBIT', KEYS[7], ARGV[i], 1) == 0 then
    new = new + 1
    redis.call('HINCRBY', KEYS[8], ARGV[i + failed], 1)
    if redis.call('SETBIT', KEYS[6], ARGV[i], 0) == 1 then unsaid = unsaid + 1 end
  end
end
local size = tonumber(ARGV[7])
if ARGV[3] == '1' then
  local count = 0
  local needed = redis.call('HGET', KEYS[5], ARGV[2])
  if needed then
    local c, s = string.match(needed, '(%d+) (%d+)')
    count = tonumber(c)
    size = size + math.max(0, tonumber(s) - tonumber(ARGV[8]))
  end
  local copied = count - unsaid
  redis.call('HINCRBY', KEYS[1], 'copied', copied)
  redis.call('HINCRBY', KEYS[1], 'present', tonumber(ARGV[4]) - copied - failed)
  redis.call('HINCRBY', KEYS[1], 'objects_settled', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'bytes_settled', ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'batches_done', 1)
else
  redis.call('HINCRBY', KEYS[1], 'healed', ARGV[6])
  -- 0 - x, not -x: Redis does not accept Lua's -0 as an integer.
  redis.call('HINCRBY', KEYS[1], 'copied', 0 - unsaid)
  redis.call('HINCRBY', KEYS[1], 'present', unsaid - new)
end
redis.call('HINCRBY', KEYS[1], 'bytes_copied', string.format('%.0f', size))
if tonumber(ARGV[12]) > 0 then redis.call('HINCRBY', KEYS[1], 'bytes_hashed', ARGV[12]) end
redis.call('HINCRBY', KEYS[1], 'failed', new)
redis.call('HDEL', KEYS[5], ARGV[2])
local room = tonumber(ARGV[10]) - redis.call('LLEN', KEYS[4])
local first = 14 + 2 * failed
for i = first, math.min(#ARGV, first - 1 + room) do redis.call('RPUSH', KEYS[4], ARGV[i]) end
redis.call('HSET', KEYS[1], 'moved_at', now())
redis.call('SETBIT', KEYS[2], ARGV[1], 1)
for i = 1, 11 do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
return 1
