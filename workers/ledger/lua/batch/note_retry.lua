-- Note that a batch waits for a message that begins it again, so that it does not count as lost.
--
-- KEYS: job, leases, holders, done
-- ARGV: name, seconds until the lease ends, seconds until the keys expire, number (-1 if it is unknown)
-- Returns: 1, 0 if the batch runs or is accounted for, or the job wants no more work
-- Atomic: a worker could begin the batch between the check and the write, and would lose its lease.
-- Uses: lib_now, lib_stopped

if stopped(KEYS[1]) or (redis.call('HGET', KEYS[3], ARGV[1]) or '') ~= '' then return 0 end
if tonumber(ARGV[4]) >= 0 and redis.call('GETBIT', KEYS[4], ARGV[4]) == 1 then return 0 end
redis.call('ZADD', KEYS[2], now() + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], '')
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return 1
