-- Lease a batch to a holder, and count that the batch was begun.
--
-- If a worker died while it copied one object of the batch by itself, that death is counted for the object and not
-- for the batch. Positions of objects become bits of bitmaps: a position beyond the plan belongs to another job, and
-- its bit could take up to 512 MiB. A job without a plan may have up to 10,000,000 objects (1.2 MiB).
--
-- A start whose machine was lost is counted apart from the starts that killed their process.
--
-- A job may have a bound of bytes or of time. Once it is reached, no further batch begins. The first batch always
-- begins, so every run of such a job looks at something.
--
-- KEYS: job, done, begun, leases, holders, held, alone, moves, running, roster
-- ARGV: number, name, seconds until the keys expire, holder, holder that is known to be dead or '', seconds of the
--       lease, the highest position of an object in the batch, bytes of the batch by the plan, seconds of silence after
--       which a worker is gone
-- Returns: {what, holder, times, deaths, lost, submitted}. What: 'begun', or why not: 'foreign' (not in the plan),
--          'accounted' (is counted already), 'stopped' (the job wants no more work), 'leased' (to *holder*), 'paused',
--          'bounded' (the job has reached its bound). Times: how often the batch was begun without an end. Deaths: JSON
--          object, position -> number of deaths, '' if there are none. Lost: starts whose machine was lost since the
--          batch last got on, '' if there were never any. Submitted: when the job was submitted, by its record, '' if
--          the batch has not begun
-- Atomic: of two deliveries of a batch only one may take the lease, and each start counts once.
-- Uses: lib_now, lib_stopped, lib_sequential, lib_lost

local most = tonumber(redis.call('HGET', KEYS[1], 'objects_total') or '') or 10000000
if tonumber(ARGV[7] or -1) >= most or tonumber(ARGV[1]) >= most then return {'foreign', '', 0, '', '', ''} end
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return {'accounted', '', 0, '', '', ''} end
if stopped(KEYS[1]) then return {'stopped', '', 0, '', '', ''} end
local at = now()
local ends = redis.call('ZSCORE', KEYS[4], ARGV[2])
if ends and tonumber(ends) > at then
  local holder = redis.call('HGET', KEYS[5], ARGV[2]) or ''
  if holder ~= '' and holder ~= ARGV[4] and holder ~= ARGV[5] then return {'leased', holder, 0, '', '', ''} end
end
local before = redis.call('HGET', KEYS[5], ARGV[2]) or ''
local twice = before == ARGV[4]
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then
  redis.call('SADD', KEYS[6], ARGV[2])
  redis.call('EXPIRE', KEYS[6], ARGV[3])
  return {'paused', '', 0, '', '', ''}
end
local bound = redis.call('HMGET', KEYS[1], 'max_read', 'max_seconds', 'bounded', 'bytes_copied', 'started_at')
if bound[1] or bound[2] then
  local read = tonumber(bound[4] or '0')
  for _, progress in ipairs(redis.call('HVALS', KEYS[9])) do
    read = read + tonumber(string.match(progress, ' (%d+)$') or '0')
  end
  local reached = bound[3]
  if not reached and redis.call('HEXISTS', KEYS[1], 'begins') == 1 then
    if bound[1] and read + tonumber(ARGV[8]) > tonumber(bound[1]) then reached = 'max_bytes' end
    if bound[2] and at - (tonumber(bound[5] or '') or at) >= tonumber(bound[2]) then reached = 'max_seconds' end
  end
  if reached then
    redis.call('HSET', KEYS[1], 'bounded', reached)
    return {'bounded', '', 0, '', '', ''}
  end
end
if not twice and before ~= ARGV[5] and lost(KEYS[10], before, ARGV[9]) then forgive(KEYS[3], KEYS[7], ARGV[2]) end
redis.call('ZADD', KEYS[4], at + tonumber(ARGV[6]), ARGV[2])
redis.call('HSET', KEYS[5], ARGV[2], ARGV[4])
redis.call('SREM', KEYS[6], ARGV[2])
redis.call('HSET', KEYS[1], 'moved_at', at)
redis.call('HINCRBY', KEYS[1], 'begins', 1)
redis.call('HSET', KEYS[8], ARGV[2], string.format('%.3f 0', at))
local record = alone_of(KEYS[7], ARGV[2])
-- A run whose first answer was lost asks again. That counts as one start.
local counted = twice and 0 or 1
if record.now then
  record.deaths[record.now] = (record.deaths[record.now] or 0) + 1
  record.now = nil
  keep_alone(KEYS[7], ARGV[2], record)
  if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then counted = 0 end
end
local times = redis.call('HINCRBY', KEYS[3], ARGV[2], counted)
for i = 1, 9 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
local times_lost = redis.call('HGET', KEYS[3], ARGV[2] .. '#lost') or ''
local submitted = redis.call('HGET', KEYS[1], 'submitted_at') or ''
return {'begun', '', times, next(record.deaths) and cjson.encode(record.deaths) or '', times_lost, submitted}
