-- End the lease of the driver of a job, unless another orchestrator asked it to look once more.
--
-- KEYS: job, driver
-- ARGV: holder, seconds of the lease, '1' to keep the lease if another orchestrator asked meanwhile
-- Returns: 1 to look once more, 0 if the holder no longer drives the job
-- Atomic: the request of an orchestrator between the check and the end of the lease would be lost.

if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local found = redis.call('HMGET', KEYS[1], 'wanted', 'seen')
if ARGV[3] == '1' and found[1] ~= found[2] then
  redis.call('HSET', KEYS[1], 'seen', found[1])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
  return 1
end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'drives', 0) end
redis.call('DEL', KEYS[2])
return 0
