"""
The steps of the limits: each is one that nothing else comes between. Time is the server's.

A limit is kept as the moment until which all of it is handed out (``until``; GCRA calls it the theoretical arrival
time). A grant moves it on by what the grant takes at the limit, and may be used from where it stood before.
"""

from __future__ import annotations

from typing import Final

# In seconds. QUANTUM: all grants that are out together are worth so much time. BURST: what was not used for longer
# is lost. HORIZON: nobody is told to wait longer for a grant that is his; NAP: nor to ask again. SEEN: who has not
# asked for so long shares no more. LAG and DEBT: how far a job can fall behind its part of a store's limit and still
# catch up, and get ahead of it where others leave something; AHEAD is how far it may in any case.
_CONSTANTS: Final = """
local QUANTUM, BURST, HORIZON, NAP, SEEN = 0.1, 0.1, 0.5, 0.25, 2
local LAG, DEBT, AHEAD = 0.5, 0.2, 0.05
local KEPT = 60
"""

_NOW: Final = """
local function now(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end
"""

# Where nobody set the store's limit, and nobody took it away, its default counts: a field of the job's record.
_LIMITS_OF: Final = """
local function limits_of(job, store, in_job, in_store, default)
  local function limit(key, field)
    return field ~= '' and tonumber(redis.call('HGET', key, field) or '') or nil
  end
  local of_store = limit(store, in_store)
  if not of_store and default ~= '' and redis.call('HEXISTS', store, 'no_default') == 0 then
    of_store = limit(job, default)
  end
  return limit(job, in_job), of_store
end
"""

# KEYS: job's record, job's bucket, its takers, store's limits, store's bucket, its jobs.
# ARGV: the limit's field in the job's record ('': none), its field in the store's, its default's in the job's ('':
# none), job, taker, how many are wanted, time ('': now). Returns how many are granted, in how many seconds they may be
# used (or may be asked for again, where none are), whether there is a limit at all, and how many it could have been.
TAKE: Final = (
    _CONSTANTS
    + _NOW
    + _LIMITS_OF
    + """
local at = now(ARGV[7])
local wanted = tonumber(ARGV[6])
local of_job, of_store = limits_of(KEYS[1], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
if not of_job and not of_store then return {wanted, '0', 0, wanted} end

local function around(key, member)
  redis.call('ZADD', key, at, member)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', at - SEEN)
  redis.call('ZREMRANGEBYSCORE', key, at + SEEN, '+inf')
  redis.call('EXPIRE', key, KEPT)
  return redis.call('ZCARD', key)
end
local takers = around(KEYS[3], ARGV[5])
local jobs = of_store and around(KEYS[6], ARGV[4]) or 1

-- No grant of this limit reaches further than this: a clock that was set back, or a limit that was lower before,
-- must not stop everything until it is caught up with.
local function standing(key, rate)
  local found = tonumber(redis.call('HGET', key, 'until') or 0)
  if found > at + HORIZON + LAG + 1 / rate then found = at end
  return math.max(found, at - BURST)
end
local begin, job_until, store_until, mine = at, nil, nil, nil
if of_job then
  job_until = standing(KEYS[2], of_job)
  begin = math.max(begin, job_until)
end
if of_store then
  store_until = standing(KEYS[5], of_store)
  begin = math.max(begin, store_until)
  if jobs > 1 then
    mine = tonumber(redis.call('HGET', KEYS[5], ARGV[4]) or 0)
    mine = math.min(math.max(mine, at - LAG), at + DEBT)
    local ahead = mine - at - AHEAD
    if ahead > 0 and store_until > at then
      return {0, string.format('%.6f', math.min(ahead, store_until - at, NAP)), 1, 0}
    end
  end
end
if begin - at > HORIZON then
  return {0, string.format('%.6f', math.min(begin - at - HORIZON / 2, NAP)), 1, 0}
end

local part = of_store and of_store / jobs or math.huge
local most = math.min(of_job or math.huge, part) * QUANTUM / takers
if mine then most = math.max(most, (at - mine) * part) end
if of_job then most = math.min(most, math.max(of_job * QUANTUM / takers, 1)) end
most = math.max(1, math.floor(most))
local granted = math.max(1, math.min(wanted, most))

if of_job then
  redis.call('HSET', KEYS[2], 'until', job_until + granted / of_job)
  redis.call('EXPIRE', KEYS[2], KEPT)
end
if of_store then
  redis.call('HSET', KEYS[5], 'until', store_until + granted / of_store)
  if mine then
    redis.call('HSET', KEYS[5], ARGV[4], math.min(mine + granted / part, at + DEBT))
  else
    redis.call('HDEL', KEYS[5], ARGV[4])
  end
  redis.call('EXPIRE', KEYS[5], KEPT)
end
return {granted, string.format('%.6f', begin - at), 1, most}
"""
)

# What was granted and not used goes back. KEYS: as TAKE. ARGV: as TAKE, how many instead of how many are wanted.
GIVE_BACK: Final = (
    _LIMITS_OF
    + """
local count = tonumber(ARGV[6])
local function back(rate, bucket)
  if rate and redis.call('HEXISTS', bucket, 'until') == 1 then
    redis.call('HINCRBYFLOAT', bucket, 'until', 0 - count / rate)
  end
end
local of_job, of_store = limits_of(KEYS[1], KEYS[4], ARGV[1], ARGV[2], ARGV[3])
back(of_job, KEYS[2])
back(of_store, KEYS[5])
return 1
"""
)

# Objects in flight. KEYS: job's record, its members, who holds what of it; then the same of the source's limits and
# of the destination's. ARGV: job, member, how many it could use (0: it leaves), how many it has in flight, for how
# many seconds this holds, time. Returns how many it may have in flight, -1 where there is no limit.
SHARE: Final = (
    _NOW
    + """
local at = now(ARGV[6])
local job, member = ARGV[1], ARGV[1] .. '|' .. ARGV[2]
local wanted, in_flight = tonumber(ARGV[3]), tonumber(ARGV[4])

-- Give to each of them as much as it wants, or as all others may have; those that hold something come last, where
-- the remainder goes. THEM: name, wanted, held.
local function divide(total, them)
  table.sort(them, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    if a[3] ~= b[3] then return a[3] < b[3] end
    return a[1] < b[1]
  end)
  local parts = {}
  for i, one in ipairs(them) do
    parts[one[1]] = math.min(one[2], math.floor(total / (#them - i + 1)))
    total = total - parts[one[1]]
  end
  return parts
end

local function leave(members, held)
  redis.call('ZREM', members, member)
  redis.call('HDEL', held, member)
end

local function share(limit, members, held)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', at)) do
    redis.call('ZREM', members, gone)
    redis.call('HDEL', held, gone)
  end
  local others, by_job, of_mine, all = 0, {}, {}, {}
  local known = redis.call('HGETALL', held)
  table.insert(known, member)
  table.insert(known, '')
  for i = 1, #known, 2 do
    local name, wants, holds = known[i], wanted, in_flight
    if i < #known - 1 then
      local w, h = string.match(known[i + 1], '(%d+) (%d+)')
      wants, holds = tonumber(w), tonumber(h)
      if name ~= member then others = others + holds end
    end
    if name ~= member or i == #known - 1 then
      local its = string.match(name, '^(.-)|')
      by_job[its] = by_job[its] or {its, 0, 0}
      by_job[its][2], by_job[its][3] = by_job[its][2] + wants, by_job[its][3] + holds
      if its == job then table.insert(of_mine, {name, wants, holds}) end
    end
  end
  for _, one in pairs(by_job) do table.insert(all, one) end
  local part = divide(divide(limit, all)[job], of_mine)[member]
  return math.max(0, math.min(part, limit - others))
end

local fields = {'limit_jobs', 'jobs', 'jobs'}
local limits, may = {}, -1
for i = 1, 3 do
  local key = 3 * i - 2
  limits[i] = wanted > 0 and tonumber(redis.call('HGET', KEYS[key], fields[i]) or '')
  if limits[i] then
    local part = share(limits[i], KEYS[key + 1], KEYS[key + 2])
    may = may < 0 and part or math.min(may, part)
  else
    leave(KEYS[key + 1], KEYS[key + 2])
  end
end
for i = 1, 3 do
  if limits[i] then
    local key = 3 * i - 2
    redis.call('ZADD', KEYS[key + 1], at + tonumber(ARGV[5]), member)
    redis.call('HSET', KEYS[key + 2], member, string.format('%.0f %.0f', wanted, math.max(may, in_flight)))
    redis.call('EXPIRE', KEYS[key + 1], 600)
    redis.call('EXPIRE', KEYS[key + 2], 600)
  end
end
return may
"""
)

# Set the limits of a job that has not ended. KEYS: job's record. ARGV: name-value pairs, '' to take one away.
# Returns the job's state, '' where there is no such job.
LIMIT_JOB: Final = """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
if state == 'done' or state == 'failed' or state == 'cancelled' then return state end
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return state
"""

# Set the limits of a store. KEYS: its limits, list of the stores that have some. ARGV: its place, then as LIMIT_JOB.
LIMIT_STORE: Final = """
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('SADD', KEYS[2], ARGV[1])
else redis.call('SREM', KEYS[2], ARGV[1]) end
return 1
"""
