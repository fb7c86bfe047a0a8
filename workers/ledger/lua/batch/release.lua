-- End the lease of a batch that its holder does not finish.
--
-- The start is not counted any more, unless the worker is being stopped by force.
--
-- KEYS: job, leases, holders, begun, alone, moves, held
-- ARGV: holder, name, seconds until a message begins the batch again (0: there is no such message), seconds until the
--       keys expire, '1' if the worker is being stopped by force, '1' to hold the batch if its job is paused
-- Returns: 1, 2 if the batch is held, 0 if the holder does not have the lease
-- Atomic: the lease could go to another worker between the check and the release, and a job could be resumed between
--         the check of its pause and the mark that the batch is held.
-- Uses: lib_now, lib_stopped, lib_sequential

if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) > 0 then
  redis.call('ZADD', KEYS[2], now() + tonumber(ARGV[3]), ARGV[2])
  redis.call('HSET', KEYS[3], ARGV[2], '')
else
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
end
redis.call('HDEL', KEYS[6], ARGV[2])
if ARGV[5] ~= '1' then
  if redis.call('HINCRBY', KEYS[4], ARGV[2], -1) <= 0 then redis.call('HDEL', KEYS[4], ARGV[2]) end
  local record = alone_of(KEYS[5], ARGV[2])
  record.now = nil
  keep_alone(KEYS[5], ARGV[2], record)
end
local held = ARGV[6] == '1' and redis.call('HEXISTS', KEYS[1], 'paused') == 1 and not stopped(KEYS[1])
if held then redis.call('SADD', KEYS[7], ARGV[2]) end
for i = 2, 7 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
return held and 2 or 1
