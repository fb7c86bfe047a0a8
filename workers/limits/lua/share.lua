-- Return how many objects a run of a batch may have in flight.
--
-- KEYS: job's record, its members, their claims; the same of the source (limits, members, claims); the same of the
--       destination
-- ARGV: job id, member, how many objects it could use (0: it leaves), how many it has in flight, seconds until the
--       claim ends, time ('': now)
-- Returns: the number of objects, -1 if there is no limit
-- Atomic: two runs must not claim the same part of a limit.
-- Uses: lib_now, lib_number

local at = now(ARGV[6])
local job, member = ARGV[1], ARGV[1] .. '|' .. ARGV[2]
local wanted, in_flight = tonumber(ARGV[3]), tonumber(ARGV[4])

-- Divide a total among claims, each {name, wanted, in flight}: each gets what it wants, or an equal part. Claims with
-- objects in flight come last, where the remainder goes.
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
      local w, h = string.match(known[i + 1], '^(%d+) (%d+)$')
      wants, holds = number(w, 0), number(h, 0)
      if name ~= member then others = others + holds end
    end
    if name ~= member or i == #known - 1 then
      local its = string.match(name, '^(.-)|') or ''
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
  limits[i] = wanted > 0 and number(redis.call('HGET', KEYS[key], fields[i]), 0)
  limits[i] = limits[i] and limits[i] >= 1 and limits[i]
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
