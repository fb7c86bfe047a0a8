-- Note that batches are in the queue again: their leases end, but for batches that a worker runs already.
--
-- KEYS: job, leases, holders, held, begun, alone, roster
-- ARGV: seconds of silence after which a worker is gone, then names
-- Returns: 1, 0 if there is no such job
-- Atomic: a worker could begin a batch between the check and the write, and would lose its lease.
-- Uses: lib_now, lib_sequential, lib_lost

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local at = now()
for i = 2, #ARGV do
  local ends = redis.call('ZSCORE', KEYS[2], ARGV[i])
  local holder = redis.call('HGET', KEYS[3], ARGV[i]) or ''
  local runs = ends and tonumber(ends) > at and holder ~= ''
  if not runs then
    if lost(KEYS[7], holder, ARGV[1]) then forgive(KEYS[5], KEYS[6], ARGV[i]) end
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
  redis.call('SREM', KEYS[4], ARGV[i])
end
redis.call('HSET', KEYS[1], 'moved_at', at)
return 1
