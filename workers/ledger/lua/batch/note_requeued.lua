-- Note that batches are in the queue again: their leases end, but for batches that a worker runs already.
--
-- KEYS: job, leases, holders, held
-- ARGV: names
-- Returns: 1, 0 if there is no such job
-- Atomic: a worker could begin a batch between the check and the write, and would lose its lease.
-- Uses: lib_now

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local at = now()
for i = 1, #ARGV do
  local ends = redis.call('ZSCORE', KEYS[2], ARGV[i])
  local runs = ends and tonumber(ends) > at and (redis.call('HGET', KEYS[3], ARGV[i]) or '') ~= ''
  if not runs then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
  redis.call('SREM', KEYS[4], ARGV[i])
end
redis.call('HSET', KEYS[1], 'moved_at', at)
return 1
