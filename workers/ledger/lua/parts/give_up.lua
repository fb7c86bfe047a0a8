-- End the claim of a holder, so that the part can be claimed at once.
--
-- KEYS: todo, holders
-- ARGV: part, holder
-- Returns: 1, 0 if another holder has the part
-- Atomic: the claim could go to another holder between the check and its end.

if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
