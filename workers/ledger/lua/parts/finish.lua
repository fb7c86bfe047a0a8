-- Record a part that its holder has written.
--
-- KEYS: todo, holders, done
-- ARGV: part, holder, record, seconds until the keys expire
-- Returns: 1, 0 if another holder has the part, -1 if nobody copies the object any more
-- Atomic: the claim could go to another holder between the check and the record.

if redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then return -1 end
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[3])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
return 1
