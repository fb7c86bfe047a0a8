-- Let one orchestrator drive a job, and count the start.
--
-- KEYS: job, driver
-- ARGV: holder, driver that is known to be dead or '', seconds of the lease
-- Returns: how often the job was driven without an end, 0 if another drives it (and is asked to look once more),
--          -1 if there is no such job
-- Atomic: of two orchestrators only one may take the lease, and the request of the other must not be lost.

if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local wanted = redis.call('HINCRBY', KEYS[1], 'wanted', 1)
local driver = redis.call('GET', KEYS[2])
if driver and driver ~= ARGV[1] and driver ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[3])
redis.call('HSET', KEYS[1], 'seen', wanted)
return redis.call('HINCRBY', KEYS[1], 'drives', 1)
