-- Defines: now(), the server's time in seconds.
--
-- All times in the ledger come from this one clock, so the machines of a fleet need not agree about the time.

local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end
