-- Note which objects of a batch a run found missing at the destination.
--
-- An object counts once, however many runs of the batch found it missing.
--
-- KEYS: job, done, needed, copied
-- ARGV: name, number, seconds until the keys expire, when the job of the run was submitted, then position and size of
--       each missing object
-- Returns: 1, 0 if the batch is accounted for, or the job has ended or is not that of the run
-- Atomic: bits and counts move together, and nothing moves once the batch is accounted for.
-- Uses: lib_final, lib_same_job

local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) or not same_job(KEYS[1], ARGV[4]) then return 0 end
if redis.call('GETBIT', KEYS[2], ARGV[2]) == 1 then return 0 end
local count, size = 0, 0
local before = redis.call('HGET', KEYS[3], ARGV[1])
if before then
  local c, s = string.match(before, '(%d+) (%d+)')
  count, size = tonumber(c), tonumber(s)
end
for i = 5, #ARGV, 2 do
  if redis.call('SETBIT', KEYS[4], ARGV[i], 1) == 0 then
    count, size = count + 1, size + tonumber(ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f %.0f', count, size))
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return 1
