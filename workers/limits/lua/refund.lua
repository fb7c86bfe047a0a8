-- Return what was granted and not used to the limits.
--
-- KEYS: as in take.lua
-- ARGV: as in take.lua, with the unused amount in place of the wanted amount
-- Returns: 1
-- Atomic: a limit could be removed, or its bucket could expire, between the check and the write.
-- Uses: lib_number, lib_limits_of

local count = tonumber(ARGV[6])
local function back(rate, bucket)
  local found = rate and number(redis.call('HGET', bucket, 'until'))
  if found then redis.call('HSET', bucket, 'until', string.format('%.17g', found - count / rate)) end
end
local of_job, of_store = limits_of(KEYS[1], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
back(of_job, KEYS[2])
back(of_store, KEYS[5])
return 1
