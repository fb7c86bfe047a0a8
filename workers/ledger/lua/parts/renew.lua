-- Renew the claims of a holder.
--
-- KEYS: todo, holders, done
-- ARGV: holder, seconds of the claim, seconds until the keys expire, then parts
-- Returns: how many of the parts the holder has
-- Atomic: a claim could go to another holder between the check and the renewal.
-- Uses: lib_now

local at, held = now(), 0
for i = 4, #ARGV do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[1] and redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', at + tonumber(ARGV[2]), ARGV[i])
    held = held + 1
  end
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return held
