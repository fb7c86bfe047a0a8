-- Forget a series to which nothing was added lately.
--
-- KEYS: registry of series, ring of minutes, ring of hours
-- ARGV: time or '' for the server's, name, seconds
-- Returns: 1 if it was forgotten, 0 if something was added to it in the last so many seconds
-- Atomic: a series to which a worker adds at the same time is kept whole or forgotten whole.
-- Uses: lib_now

local added = redis.call('ZSCORE', KEYS[1], ARGV[2])
if added and now(ARGV[1]) - tonumber(added) < tonumber(ARGV[3]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
