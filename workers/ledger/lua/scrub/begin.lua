-- Begin a new cycle of a scrub if there is no record of it, or if the record is of another store or other shares.
--
-- KEYS: state, verified, findings
-- ARGV: store, shares, the address where the first run begins, 1 if the record cannot be right
-- Returns: '' if the record stands, or why a new cycle begins: 'none', 'store', 'shares'
-- Atomic: a scheduler and an orchestrator may begin the same cycle, and a run must not be recorded in half of it.
-- Uses: lib_now

local found = redis.call('HMGET', KEYS[1], 'store', 'shares')
local why = ''
if not found[1] or ARGV[4] == '1' then
  why = 'none'
elseif found[1] ~= ARGV[1] then
  why = 'store'
elseif found[2] ~= ARGV[2] then
  why = 'shares'
end
if why == '' then return '' end
local at = now()
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'store', ARGV[1], 'shares', ARGV[2], 'began_at', at, 'why', why, 'cycle', 1,
  'cycle_at', at, 'share', 0, 'at', ARGV[3])
return why
