-- Claim a part of an object: the lowest that nobody has claimed, or whose claim was not renewed in time.
--
-- KEYS: job, todo, holders
-- ARGV: holder, seconds of the claim
-- Returns: the part, '' if there is none, or if the job is paused or wants no more work
-- Atomic: a part must not be claimed twice.
-- Uses: lib_now, lib_stopped

if stopped(KEYS[1]) or redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return '' end
local at = now()
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', at, 'LIMIT', 0, 1)[1]
if not found then return '' end
redis.call('ZADD', KEYS[2], at + tonumber(ARGV[2]), found)
redis.call('HSET', KEYS[3], found, ARGV[1])
return found
