-- Defines: lost(roster, holder, silent), forgive(begun, alone, name).
-- Uses: lib_now, lib_sequential
--
-- lost: whether the machine of a holder is gone, and not only its process: its worker announced itself to the roster,
-- and has been silent for more than *silent* seconds. A worker that lives on, or was started again, is not lost.
--
-- forgive: count a start that did not end as one whose machine was taken away. That says nothing about the batch.

local function lost(roster, holder, silent)
  local at = string.find(holder, '@', 1, true)
  local text = at and redis.call('HGET', roster, string.sub(holder, at + 1))
  if not text then return false end
  local read, found = pcall(cjson.decode, text)
  local known = read and type(found) == 'table' and type(found.at) == 'number'
  return known and now() - found.at > tonumber(silent)
end
local function forgive(begun, alone, name)
  if redis.call('HINCRBY', begun, name, -1) <= 0 then redis.call('HDEL', begun, name) end
  redis.call('HINCRBY', begun, name .. '#lost', 1)
  local record = alone_of(alone, name)
  record.now = nil
  keep_alone(alone, name, record)
end
