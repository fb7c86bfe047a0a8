-- Defines: alone_of(hash, name), keep_alone(hash, name, record).
--
-- The record of a batch that is copied one object at a time. "now" is the position of the object that is being
-- copied, "deaths" maps positions to the number of workers that died while they copied that object.

local function alone_of(hash, name)
  local read, found = pcall(cjson.decode, redis.call('HGET', hash, name) or '')
  return read and type(found) == 'table' and type(found.deaths) == 'table' and found or {deaths = {}}
end
local function keep_alone(hash, name, record)
  if record.now or next(record.deaths) then redis.call('HSET', hash, name, cjson.encode(record))
  else redis.call('HDEL', hash, name) end
end
