-- Record what a run of a scrub has read, and where the next run begins.
--
-- A share counts as verified since the moment when the first of the runs that read it began: no byte of it was read
-- before. Findings of a share are those of its last reading, so they end when the share is read again and is sound.
--
-- KEYS: state, verified, findings
-- ARGV: job, store, shares, share, the address where the run began, how it ended ('read': all of the share, 'part': the
--       share up to the next address, 'unread': objects could not be read), the address where the next run begins,
--       wrong objects, unreadable manifests, when the run began, 1 if the run counts as a try, the most tries
-- Returns: 1, or 0 if the run was recorded before, or is not that of the current position
-- Atomic: two orchestrators may end the same job, and the position must move once.
-- Uses: lib_now

local keys = {'settled', 'store', 'shares', 'share', 'at', 'found', 'known', 'part_at', 'tries', 'cycle'}
local state = {}
for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(keys))) do state[keys[i]] = value or '' end
if state.settled == ARGV[1] or state.store ~= ARGV[2] or state.shares ~= ARGV[3] or state.share ~= ARGV[4]
  or state.at ~= ARGV[5] then
  return 0
end
local at, ended = now(), ARGV[6]
local found = (tonumber(state.found) or 0) + tonumber(ARGV[8])
local before = tonumber(redis.call('HGET', KEYS[3], ARGV[4]) or '0')
if found > 0 then
  redis.call('HSET', KEYS[3], ARGV[4], found)
else
  redis.call('HDEL', KEYS[3], ARGV[4])
end
redis.call('HSET', KEYS[1], 'settled', ARGV[1], 'manifests', ARGV[9], 'known', (tonumber(state.known) or 0) + found - before)
redis.call('HINCRBY', KEYS[1], 'findings_total', tonumber(ARGV[8]) + tonumber(ARGV[9]))
local tries = (tonumber(state.tries) or 0) + tonumber(ARGV[11])
if ended == 'unread' and tries < tonumber(ARGV[12]) then
  redis.call('HSET', KEYS[1], 'tries', tries)
  return 1
end
local part_at = state.part_at ~= '' and state.part_at or ARGV[10]
if ended ~= 'unread' then redis.call('HSET', KEYS[1], 'succeeded_at', at) end
if ended == 'part' then
  redis.call('HSET', KEYS[1], 'at', ARGV[7], 'part_at', part_at, 'found', found, 'tries', 0)
  return 1
end
if ended == 'read' then redis.call('ZADD', KEYS[2], part_at, ARGV[4]) end
local share = tonumber(ARGV[4]) + 1
if share >= tonumber(ARGV[3]) then
  share = 0
  redis.call('HSET', KEYS[1], 'cycle', (tonumber(state.cycle) or 0) + 1, 'cycle_at', at)
end
redis.call('HSET', KEYS[1], 'share', share, 'at', ARGV[7], 'part_at', '', 'found', 0, 'tries', 0)
return 1
