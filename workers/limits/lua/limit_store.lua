-- Set the limits of a store.
--
-- KEYS: the store's limits, set of the stores with limits
-- ARGV: store, then field-value pairs, '' as value to remove a limit
-- Returns: 1
-- Atomic: a store is in the set exactly while it has limits, also where two operators change them at the same time.

for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('SADD', KEYS[2], ARGV[1])
else redis.call('SREM', KEYS[2], ARGV[1]) end
return 1
