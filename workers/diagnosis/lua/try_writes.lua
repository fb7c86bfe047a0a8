-- Run every command that the ledger, the queue and the result store use, on keys of their own, and remove the keys.
--
-- KEYS: five keys that do not exist: a hash, a string, a sorted set, a list, a set
-- ARGV: none
-- Returns: the first command that was refused and why, or ''
-- Atomic: no other client sees the keys.

local refused = ''
local function try(...)
  if refused ~= '' then return end
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then refused = ({...})[1] .. ': ' .. said.err end
end
local hash, text, sorted, list, set = unpack(KEYS)
-- A full Redis refuses the first write of a script if it needs memory, but no later write. So SET comes first.
try('SET', text, '', 'EX', 60)
try('DEL', hash, text, sorted, list, set)
try('TIME')
try('EXISTS', hash)
try('TYPE', hash)
try('PTTL', hash)
try('HSET', hash, 'a', 1)
try('HSETNX', hash, 'b', 1)
try('HINCRBY', hash, 'a', 1)
try('HGET', hash, 'a')
try('HMGET', hash, 'a', 'b')
try('HGETALL', hash)
try('HVALS', hash)
try('HEXISTS', hash, 'a')
try('HLEN', hash)
try('HDEL', hash, 'b')
try('EXPIRE', hash, 60)
try('SET', text, '', 'EX', 60)
try('SETBIT', text, 7, 1)
try('SETRANGE', text, 1, 'a')
try('GETBIT', text, 7)
try('BITFIELD', text, 'INCRBY', 'i64', '#0', 1)
try('GET', text)
try('RENAME', text, text)
try('ZADD', sorted, 1, 'a')
try('ZSCORE', sorted, 'a')
try('ZCARD', sorted)
try('ZRANGEBYSCORE', sorted, 0, 1)
try('ZREVRANGE', sorted, 0, 0)
try('ZRANGE', sorted, 0, 0)
try('ZREMRANGEBYRANK', sorted, 0, -100)
try('ZREM', sorted, 'a')
try('RPUSH', list, 'a')
try('LPUSH', list, 'a')
try('LLEN', list)
try('LRANGE', list, 0, 0)
try('LREM', list, -1, 'a')
try('SADD', set, 'a')
try('SMEMBERS', set)
try('SREM', set, 'a')
redis.pcall('DEL', hash, text, sorted, list, set)
return refused
