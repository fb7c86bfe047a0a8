-- End the lease of a batch if a holder at the given worker has it.
--
-- The worker shuts down, so the start says nothing about the batch.
--
-- KEYS: leases, holders, begun, alone
-- ARGV: name, worker
-- Returns: 1, 0 if the lease belongs to another worker or to none
-- Atomic: the lease could go to another worker between the check and the write.
-- Uses: lib_now, lib_sequential, lib_lost

local holder = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local at = string.find(holder, '@', 1, true)
if not at or string.sub(holder, at + 1) ~= ARGV[2] then return 0 end
-- A second in the past, so the lease has also expired for a script that runs in the same moment.
redis.call('ZADD', KEYS[1], 'XX', now() - 1, ARGV[1])
-- No run has this name, so a thread that is still alive cannot renew the lease.
redis.call('HSET', KEYS[2], ARGV[1], 'stopped')
forgive(KEYS[3], KEYS[4], ARGV[1])
return 1
