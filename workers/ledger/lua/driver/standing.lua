-- Read what decides on the next step of a job.
--
-- KEYS: job, leases, held, heals, driver, holders
-- ARGV: none
-- Returns: false if there is no such job, or {fields of the record, batches whose worker died, batches whose retry is
--          overdue, number of leases, number of running batches, held batches, heals, 1 if the job has a driver}
-- Atomic: the values must be of one moment, or a batch that ends meanwhile would be missing in all of them.
-- Uses: lib_now

local job = redis.call('HMGET', KEYS[1], 'state', 'paused', 'cancel', 'batches_handed', 'batches_done', 'failed',
  'moved_at', 'stalls', 'stalled_done', 'drives', 'waits', 'begins', 'stalled_begins', 'bounded',
  'snapshots_planned', 'snapshots_total')
if not job[1] then return false end
for i = 1, 16 do job[i] = job[i] or '' end
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
