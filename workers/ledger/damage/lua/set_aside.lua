-- Rename a damaged key, so that the fleet makes it anew.
--
-- KEYS: the key, its name aside
-- ARGV: type that the key had, '1' if it must be without an expiry or expire after more than ARGV[3] milliseconds,
--       that number of milliseconds, seconds until the renamed key expires
-- Returns: 1 if it was renamed, 0 if it has changed meanwhile
-- Atomic: the fleet may have made the key anew meanwhile.

if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then return 0 end
if ARGV[2] == '1' then
  local left = redis.call('PTTL', KEYS[1])
  if left ~= -1 and left <= tonumber(ARGV[3]) then return 0 end
end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
