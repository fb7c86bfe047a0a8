"""
The ledger's scripts: each is one step that nothing else comes between.

Time is the server's, so that machines need not agree about it.
"""

from __future__ import annotations

from typing import Final

_NOW: Final = """
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end
"""

# A full Redis refuses a script's first write if that takes memory, and none after a first one that does not. So what
# an operator asks for is done all the same. KEYS[1]: a hash.
_ALSO_WHEN_FULL: Final = """
redis.call('HDEL', KEYS[1], '-')
"""

_FINAL: Final = """
local function final(state) return state == 'done' or state == 'failed' or state == 'cancelled' end
"""

# Whether a job wants no more work: it was cancelled, has ended, or is unknown.
_STOPPED: Final = (
    _FINAL
    + """
local function stopped(job)
  local found = redis.call('HMGET', job, 'state', 'cancel')
  return not found[1] or final(found[1]) or found[2] ~= false
end
"""
)

# Of a batch that is copied one object after the other: which object is on its way ("now"), and how often a worker
# died over which, both by the objects' positions.
_ALONE: Final = """
local function alone_of(hash, name)
  local read, found = pcall(cjson.decode, redis.call('HGET', hash, name) or '')
  return read and type(found) == 'table' and type(found.deaths) == 'table' and found or {deaths = {}}
end
local function keep_alone(hash, name, record)
  if record.now or next(record.deaths) then redis.call('HSET', hash, name, cjson.encode(record))
  else redis.call('HDEL', hash, name) end
end
"""

# Do what all other steps do, on keys of its own, and take it back; return what was refused, or "". KEYS: five that
# do not exist: a hash, a string, a sorted set, a list and a set.
TRY: Final = """
local refused = ''
local function try(...)
  if refused ~= '' then return end
  local said = redis.pcall(...)
  if type(said) == 'table' and said.err then refused = ({...})[1] .. ': ' .. said.err end
end
local hash, text, sorted, list, set = unpack(KEYS)
-- A full server refuses the first write alone, and of those that take memory. This one would go by itself.
try('SET', text, '', 'EX', 60)
try('DEL', hash, text, sorted, list, set)
try('TIME')
try('EXISTS', hash)
try('HSET', hash, 'a', 1)
try('HSETNX', hash, 'b', 1)
try('HINCRBY', hash, 'a', 1)
try('HGET', hash, 'a')
try('HMGET', hash, 'a', 'b')
try('HGETALL', hash)
try('HVALS', hash)
try('HEXISTS', hash, 'a')
try('HDEL', hash, 'b')
try('EXPIRE', hash, 60)
try('SET', text, '', 'EX', 60)
try('SETBIT', text, 7, 1)
try('SETRANGE', text, 1, 'a')
try('GETBIT', text, 7)
try('GET', text)
try('ZADD', sorted, 1, 'a')
try('ZSCORE', sorted, 'a')
try('ZRANGEBYSCORE', sorted, 0, 1)
try('ZREVRANGE', sorted, 0, 0)
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
"""

# KEYS: job, index, open. ARGV: id, expires, then field-value pairs.
CREATE: Final = (
    _NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local at = now()
redis.call('HSET', KEYS[1], 'state', 'queued', 'submitted_at', at, 'moved_at', at)
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], at, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
return 1
"""
)

# KEYS: job, index, open. ARGV: id. Returns 0 if the job was begun.
WITHDRAW: Final = """
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'queued' then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
"""

# KEYS: open, job, the job's other keys. ARGV: id, expires, state, then field-value pairs.
ADVANCE: Final = (
    _NOW
    + _FINAL
    + """
local rank = {queued = 0, planning = 1, copying = 2, committing = 3, done = 4, failed = 4, cancelled = 4}
local state = redis.call('HGET', KEYS[2], 'state')
if not state or final(state) then return 0 end
local heals = state == 'committing' and ARGV[3] == 'copying'
if rank[ARGV[3]] < rank[state] and not heals then return 1 end
local at = now()
redis.call('HSET', KEYS[2], 'state', ARGV[3], 'moved_at', at)
if ARGV[3] == 'planning' then redis.call('HSETNX', KEYS[2], 'started_at', at) end
for i = 4, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
if final(ARGV[3]) then
  redis.call('HSET', KEYS[2], 'ended_at', at)
  redis.call('SREM', KEYS[1], ARGV[1])
end
for i = 2, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
"""
)

# Set fields of a job that has not ended. KEYS: job. ARGV: expires, then field-value pairs.
NOTE: Final = (
    _NOW
    + _FINAL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) then return 0 end
redis.call('HSET', KEYS[1], 'moved_at', now())
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# A job that nobody has begun is cancelled at once. KEYS: job, open. ARGV: id.
CANCEL: Final = (
    _NOW
    + _FINAL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
if final(state) then return state end
"""
    + _ALSO_WHEN_FULL
    + """
redis.call('HSET', KEYS[1], 'cancel', '1')
if state == 'queued' then
  redis.call('HSET', KEYS[1], 'state', 'cancelled', 'ended_at', now())
  redis.call('SREM', KEYS[2], ARGV[1])
  return 'cancelled'
end
return state
"""
)

# KEYS: job. ARGV: '1' to pause, '0' to go on.
PAUSE: Final = (
    _NOW
    + _FINAL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) then return state or '' end
"""
    + _ALSO_WHEN_FULL
    + """
if ARGV[1] == '1' then redis.call('HSET', KEYS[1], 'paused', '1')
elseif redis.call('HDEL', KEYS[1], 'paused') == 1 then
  -- The time of a pause is not taken off the job's patience.
  redis.call('HDEL', KEYS[1], 'waits', 'flaps', 'given_up', 'step_waits')
end
redis.call('HSET', KEYS[1], 'moved_at', now())
return state
"""
)

# An object over which the last run died takes that death upon itself: it does not count for its batch.
# KEYS: job, done, begun, leases, holders, held, alone, moves. ARGV: number, name, expires, holder, instead of, lease,
# the highest position. Positions become bits: what is beyond the plan is not of this job, and would take up to
# 512 MiB. Before there is a plan, 10,000,000 are allowed (1.2 MiB).
BEGIN: Final = (
    _NOW
    + _STOPPED
    + _ALONE
    + """
local most = tonumber(redis.call('HGET', KEYS[1], 'objects_total') or '') or 10000000
if tonumber(ARGV[7] or -1) >= most or tonumber(ARGV[1]) >= most then return {'foreign', '', 0, ''} end
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return {'accounted', '', 0, ''} end
if stopped(KEYS[1]) then return {'stopped', '', 0, ''} end
local at = now()
local ends = redis.call('ZSCORE', KEYS[4], ARGV[2])
if ends and tonumber(ends) > at then
  local holder = redis.call('HGET', KEYS[5], ARGV[2]) or ''
  if holder ~= '' and holder ~= ARGV[4] and holder ~= ARGV[5] then return {'leased', holder, 0, ''} end
end
local twice = redis.call('HGET', KEYS[5], ARGV[2]) == ARGV[4]
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then
  redis.call('SADD', KEYS[6], ARGV[2])
  redis.call('EXPIRE', KEYS[6], ARGV[3])
  return {'paused', '', 0, ''}
end
redis.call('ZADD', KEYS[4], at + tonumber(ARGV[6]), ARGV[2])
redis.call('HSET', KEYS[5], ARGV[2], ARGV[4])
redis.call('SREM', KEYS[6], ARGV[2])
redis.call('HSET', KEYS[1], 'moved_at', at)
redis.call('HINCRBY', KEYS[1], 'begins', 1)
redis.call('HSET', KEYS[8], ARGV[2], string.format('%.3f 0', at))
local record = alone_of(KEYS[7], ARGV[2])
-- Asked twice by one run, whose first answer was lost, is begun once.
local counted = twice and 0 or 1
if record.now then
  record.deaths[record.now] = (record.deaths[record.now] or 0) + 1
  record.now = nil
  keep_alone(KEYS[7], ARGV[2], record)
  if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then counted = 0 end
end
local times = redis.call('HINCRBY', KEYS[3], ARGV[2], counted)
for i = 1, 8 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return {'begun', '', times, next(record.deaths) and cjson.encode(record.deaths) or ''}
"""
)

# KEYS: job, leases, holders, begun, alone, moves, held.
# ARGV: holder, name, seconds until it is begun again (0: not of itself), expires, '1' if its worker is being ended,
# '1' to hold the batch if its job is paused. Returns 1, 2 if the batch is held, 0 if somebody else has it.
RELEASE: Final = (
    _NOW
    + _STOPPED
    + _ALONE
    + """
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) > 0 then
  redis.call('ZADD', KEYS[2], now() + tonumber(ARGV[3]), ARGV[2])
  redis.call('HSET', KEYS[3], ARGV[2], '')
else
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('HDEL', KEYS[3], ARGV[2])
end
redis.call('HDEL', KEYS[6], ARGV[2])
if ARGV[5] ~= '1' then
  if redis.call('HINCRBY', KEYS[4], ARGV[2], -1) <= 0 then redis.call('HDEL', KEYS[4], ARGV[2]) end
  local record = alone_of(KEYS[5], ARGV[2])
  record.now = nil
  keep_alone(KEYS[5], ARGV[2], record)
end
local held = ARGV[6] == '1' and redis.call('HEXISTS', KEYS[1], 'paused') == 1 and not stopped(KEYS[1])
if held then redis.call('SADD', KEYS[7], ARGV[2]) end
for i = 2, 7 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
return held and 2 or 1
"""
)

# KEYS: holders, alone. ARGV: holder, name, position, expires.
ALONE: Final = (
    _ALONE
    + """
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[1] then return 0 end
local record = alone_of(KEYS[2], ARGV[2])
record.now = ARGV[3]
keep_alone(KEYS[2], ARGV[2], record)
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
"""
)

# Only a holder at that worker loses its lease. KEYS: leases, holders. ARGV: name, worker.
VOID: Final = (
    _NOW
    + """
local holder = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local at = string.find(holder, '@', 1, true)
if not at or string.sub(holder, at + 1) ~= ARGV[2] then return 0 end
-- Clearly in the past, also for a look at leases in the same moment.
redis.call('ZADD', KEYS[1], 'XX', now() - 1, ARGV[1])
-- No run has this name, so a thread that is still alive cannot renew it.
redis.call('HSET', KEYS[2], ARGV[1], string.sub(holder, at))
return 1
"""
)

# KEYS: job, leases, holders, done. ARGV: name, seconds, expires, number (-1: cannot be told).
WAIT: Final = (
    _NOW
    + _STOPPED
    + """
if stopped(KEYS[1]) or (redis.call('HGET', KEYS[3], ARGV[1]) or '') ~= '' then return 0 end
if tonumber(ARGV[4]) >= 0 and redis.call('GETBIT', KEYS[4], ARGV[4]) == 1 then return 0 end
redis.call('ZADD', KEYS[2], now() + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], '')
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return 1
"""
)

# KEYS: job, done, needed, copied. ARGV: name, number, expires, then position and size of each object found missing.
NEED: Final = (
    _FINAL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) or redis.call('GETBIT', KEYS[2], ARGV[2]) == 1 then return 0 end
local count, size = 0, 0
local before = redis.call('HGET', KEYS[3], ARGV[1])
if before then
  local c, s = string.match(before, '(%d+) (%d+)')
  count, size = tonumber(c), tonumber(s)
end
for i = 4, #ARGV, 2 do
  if redis.call('SETBIT', KEYS[4], ARGV[i], 1) == 0 then
    count, size = count + 1, size + tonumber(ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f %.0f', count, size))
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return 1
"""
)

# KEYS: as of NEED. ARGV: name, number, expires, first place, objects, bytes. 0: an earlier delivery noted some of them
# already, so what is new of them has to be counted one by one, by NEED.
NEED_ALL: Final = (
    _FINAL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) or redis.call('GETBIT', KEYS[2], ARGV[2]) == 1 then return 1 end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
local first, last = tonumber(ARGV[4]), tonumber(ARGV[4]) + tonumber(ARGV[5])
-- Bits one by one up to the first whole byte and from the last one on; the bytes in between at once.
local whole = math.min(math.ceil(first / 8) * 8, last)
local rest = whole + math.floor((last - whole) / 8) * 8
for at = first, whole - 1 do redis.call('SETBIT', KEYS[4], at, 1) end
if rest > whole then redis.call('SETRANGE', KEYS[4], whole / 8, string.rep('\\255', (rest - whole) / 8)) end
for at = rest, last - 1 do redis.call('SETBIT', KEYS[4], at, 1) end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5] .. ' ' .. ARGV[6])
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return 1
"""
)

# KEYS: job, done, running, leases, holders, moves.
# ARGV: number, name, objects, bytes, expires, holder, lease, objects in flight.
# Returns what the job wants of the batch: 0 to go on, 1 to stop, 2 to hold it.
PROGRESS: Final = (
    _NOW
    + _STOPPED
    + """
local at = now()
local holds = redis.call('HGET', KEYS[5], ARGV[2]) == ARGV[6]
if holds then
  redis.call('ZADD', KEYS[4], 'XX', at + tonumber(ARGV[7]), ARGV[2])
end
if stopped(KEYS[1]) then return 1 end
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 0 then
  local objects, size = tonumber(ARGV[3]), tonumber(ARGV[4])
  local before = redis.call('HGET', KEYS[3], ARGV[2])
  if before then
    local o, b = string.match(before, '(%d+) (%d+)')
    objects, size = math.max(objects, tonumber(o)), math.max(size, tonumber(b))
  end
  local after = string.format('%.0f %.0f', objects, size)
  if after ~= before then redis.call('HSET', KEYS[1], 'moved_at', at) end
  redis.call('HSET', KEYS[3], ARGV[2], after)
  if holds then
    -- Of this run alone: "when it last moved, its objects in flight, its objects and bytes".
    local run = ARGV[3] .. ' ' .. ARGV[4]
    local moved, _, last = string.match(redis.call('HGET', KEYS[6], ARGV[2]) or '', '^(%S+) (%d+) ?(.*)$')
    if not moved or last ~= run then moved = string.format('%.3f', at) end
    redis.call('HSET', KEYS[6], ARGV[2], moved .. ' ' .. ARGV[8] .. ' ' .. run)
  end
  for i = 1, 6 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return 2 end
return 0
"""
)

# KEYS: job. ARGV: names of fields, each with what is to be added to it.
NOTE_CONFIRMED: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 0
"""

# KEYS: job, done, running, failures, needed, copied, failed, classes, begun, alone, moves.
# ARGV: number, name, in the plan ('1' or '0'), objects, planned bytes, copied, bytes copied, bytes needed,
# expires, failures kept, how many failed, then their positions, their classes, and what is kept of them.
ACCOUNT: Final = (
    _NOW
    + _STOPPED
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) then return 0 end
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('HDEL', KEYS[9], ARGV[2])
redis.call('HDEL', KEYS[10], ARGV[2])
redis.call('HDEL', KEYS[11], ARGV[2])
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return 0 end
local failed = tonumber(ARGV[11])
local new, unsaid = 0, 0
for i = 12, 11 + failed do
  if redis.call('SETBIT', KEYS[7], ARGV[i], 1) == 0 then
    new = new + 1
    redis.call('HINCRBY', KEYS[8], ARGV[i + failed], 1)
    if redis.call('SETBIT', KEYS[6], ARGV[i], 0) == 1 then unsaid = unsaid + 1 end
  end
end
local size = tonumber(ARGV[7])
if ARGV[3] == '1' then
  local count = 0
  local needed = redis.call('HGET', KEYS[5], ARGV[2])
  if needed then
    local c, s = string.match(needed, '(%d+) (%d+)')
    count = tonumber(c)
    size = size + math.max(0, tonumber(s) - tonumber(ARGV[8]))
  end
  local copied = count - unsaid
  redis.call('HINCRBY', KEYS[1], 'copied', copied)
  redis.call('HINCRBY', KEYS[1], 'present', tonumber(ARGV[4]) - copied - failed)
  redis.call('HINCRBY', KEYS[1], 'objects_settled', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'bytes_settled', ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'batches_done', 1)
else
  redis.call('HINCRBY', KEYS[1], 'healed', ARGV[6])
  -- 0 - x and not -x: Lua's -0 is no integer to Redis.
  redis.call('HINCRBY', KEYS[1], 'copied', 0 - unsaid)
  redis.call('HINCRBY', KEYS[1], 'present', unsaid - new)
end
redis.call('HINCRBY', KEYS[1], 'bytes_copied', string.format('%.0f', size))
redis.call('HINCRBY', KEYS[1], 'failed', new)
redis.call('HDEL', KEYS[5], ARGV[2])
local room = tonumber(ARGV[10]) - redis.call('LLEN', KEYS[4])
local first = 12 + 2 * failed
for i = first, math.min(#ARGV, first - 1 + room) do redis.call('RPUSH', KEYS[4], ARGV[i]) end
redis.call('HSET', KEYS[1], 'moved_at', now())
redis.call('SETBIT', KEYS[2], ARGV[1], 1)
for i = 1, 11 do redis.call('EXPIRE', KEYS[i], ARGV[9]) end
return 1
"""
)

# KEYS: job, leases, holders, held. ARGV: names, which are in the queue again; some may be running already.
HAND_OUT_AGAIN: Final = (
    _NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local at = now()
for i = 1, #ARGV do
  local ends = redis.call('ZSCORE', KEYS[2], ARGV[i])
  local runs = ends and tonumber(ends) > at and (redis.call('HGET', KEYS[3], ARGV[i]) or '') ~= ''
  if not runs then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
  redis.call('SREM', KEYS[4], ARGV[i])
end
redis.call('HSET', KEYS[1], 'moved_at', at)
return 1
"""
)

# KEYS: job, driver. ARGV: holder, instead of, lease. Returns how often it was begun without an end; 0: another drives.
DRIVE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local wanted = redis.call('HINCRBY', KEYS[1], 'wanted', 1)
local driver = redis.call('GET', KEYS[2])
if driver and driver ~= ARGV[1] and driver ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[3])
redis.call('HSET', KEYS[1], 'seen', wanted)
return redis.call('HINCRBY', KEYS[1], 'drives', 1)
"""

# KEYS: job, driver. ARGV: holder, lease, '1' to go on if somebody wanted it meanwhile. Returns 1 to go on.
PARK: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local found = redis.call('HMGET', KEYS[1], 'wanted', 'seen')
if ARGV[3] == '1' and found[1] ~= found[2] then
  redis.call('HSET', KEYS[1], 'seen', found[1])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
  return 1
end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'drives', 0) end
redis.call('DEL', KEYS[2])
return 0
"""

# KEYS: driver. ARGV: holder, lease.
KEEP_DRIVING: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""

# KEYS: job, leases, held, heals, driver, holders. Returns what decides on the next step.
STANDING: Final = (
    _NOW
    + """
local job = redis.call('HMGET', KEYS[1], 'state', 'paused', 'cancel', 'batches_handed', 'batches_done', 'failed',
  'moved_at', 'stalls', 'stalled_done', 'drives', 'waits', 'begins', 'stalled_begins')
if not job[1] then return false end
for i = 1, 13 do job[i] = job[i] or '' end
local at = now()
job[7] = tostring(at - (tonumber(job[7]) or at))
local leased = redis.call('ZRANGEBYSCORE', KEYS[2], at, '+inf')
local running = 0
for _, name in ipairs(leased) do
  if (redis.call('HGET', KEYS[6], name) or '') ~= '' then running = running + 1 end
end
local expired, overdue = {}, {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. at)) do
  local died = (redis.call('HGET', KEYS[6], name) or '') ~= ''
  table.insert(died and expired or overdue, name)
end
return {job, expired, overdue, #leased, running,
  redis.call('SMEMBERS', KEYS[3]), redis.call('HGETALL', KEYS[4]), redis.call('EXISTS', KEYS[5])}
"""
)
