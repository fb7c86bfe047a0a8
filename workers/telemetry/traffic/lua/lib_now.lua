-- Defines: now(given), the server's time in seconds, or *given* if it is not ''.

local function now(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end
