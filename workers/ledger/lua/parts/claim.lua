-- Claim a part of an object: the lowest that nobody has claimed, or whose claim was not renewed in time.
--
-- Entries that no worker can have written are removed: names that are not parts, and claims that last too long.
--
-- KEYS: job, todo, holders
-- ARGV: holder, seconds of the claim, number of parts of the object
-- Returns: the part, '' if there is none, or if the job is paused or wants no more work
-- Atomic: a part must not be claimed twice.
-- Uses: lib_now, lib_stopped

if stopped(KEYS[1]) or redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return '' end
local at = now()
for _ = 1, 100 do
  local found = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', at, 'LIMIT', 0, 1)[1]
    or redis.call('ZRANGEBYSCORE', KEYS[2], at + 2 * tonumber(ARGV[2]), '+inf', 'LIMIT', 0, 1)[1]
  if not found then return '' end
  if string.match(found, '^%d%d%d%d%d$') and tonumber(found) < tonumber(ARGV[3]) then
    redis.call('ZADD', KEYS[2], at + tonumber(ARGV[2]), found)
    redis.call('HSET', KEYS[3], found, ARGV[1])
    return found
  end
  redis.call('ZREM', KEYS[2], found)
end
return ''
