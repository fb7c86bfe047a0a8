-- Grant a part of the requested bytes or requests of a process, within the limits of its job and of a store.
--
-- A limit is kept as the moment until which all of it is granted ("until"; GCRA calls it the theoretical arrival
-- time). A grant moves that moment on by the time that the grant takes at the limit. The grant may be used from the
-- moment where "until" stood before.
--
-- KEYS: job's record, job's bucket, processes of the job, store's limits, store's bucket, jobs of the store
-- ARGV: field of the limit in the job's record ('': none), field in the store's limits, field of the default in the
--       job's record ('': none), job id, process, wanted amount, time ('': now)
-- Returns: {granted amount, seconds until it may be used (or until the next request, if nothing is granted), 1 if there
--          is a limit, the most that could have been granted}
-- Atomic: two processes must not be granted the same capacity.
-- Uses: lib_constants, lib_now, lib_number, lib_limits_of

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

-- No grant of this limit reaches further. A clock that was set back, or a limit that was lower before, must not stop
-- all grants until that moment has passed.
local function standing(key, rate)
  local found = number(redis.call('HGET', key, 'until'), 0)
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
    mine = number(redis.call('HGET', KEYS[5], ARGV[4]), 0)
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
