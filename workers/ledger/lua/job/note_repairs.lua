-- Record wrong objects of a destination, and what took their place.
--
-- KEYS: job, repairs
-- ARGV: seconds until the keys expire, the most records, then address and record of each object
-- Returns: 0
-- Atomic: the record of the job could expire between the check and the write, and repairs would stay for ever.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local room = tonumber(ARGV[2]) - redis.call('HLEN', KEYS[2])
for i = 3, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  elseif room > 0 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    room = room - 1
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
return 0
