-- Note which object the holder of a batch copies now, and no other object beside it.
--
-- KEYS: holders, alone
-- ARGV: holder, name, position, seconds until the keys expire
-- Returns: 1, 0 if the holder does not have the lease
-- Atomic: the batch could go to another worker between the check and the write.
-- Uses: lib_sequential

if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then return 0 end
local record = alone_of(KEYS[2], ARGV[2])
record.now = ARGV[3]
keep_alone(KEYS[2], ARGV[2], record)
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
