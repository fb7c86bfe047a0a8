-- Record what a batch has spent so far, and add the difference to the totals of its job.
--
-- Nothing is counted for a job that has ended. Bytes in flight are a figure of their own: a run that died had them in
-- flight.
--
-- KEYS: job, spent
-- ARGV: name, bytes of copied objects, bytes in flight, copied objects, cost in millionths, seconds until the keys
--       expire, the limits of the budget in bytes, objects and millionths ('': none), the total that the next object
--       would exceed ('': none)
-- Returns: {{the first exceeded total or '', bytes, objects and cost of the job}, figures of the batch or ''}
-- Atomic: the figures of the batch and the totals move together, so a repeated report adds nothing.

local state = redis.call('HGET', KEYS[1], 'state')
local names = {'spent_bytes', 'spent_objects', 'spent_cost'}
if state and state ~= 'done' and state ~= 'failed' and state ~= 'cancelled' then
  local found = {tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])}
  local before = {0, 0, 0, 0}
  local record = redis.call('HGET', KEYS[2], ARGV[1])
  if record then
    local a, b, c, d = string.match(record, '(%d+) (%d+) (%d+) (%d+)')
    before = {tonumber(a), tonumber(b), tonumber(c), tonumber(d)}
  end
  for _, i in ipairs({1, 3, 4}) do found[i] = math.max(found[i], before[i]) end
  local moved = {found[1] + found[2] - before[1] - before[2], found[3] - before[3], found[4] - before[4]}
  for i = 1, 3 do
    if moved[i] ~= 0 then redis.call('HINCRBY', KEYS[1], names[i], string.format('%.0f', moved[i])) end
  end
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %.0f %.0f %.0f', unpack(found)))
  redis.call('EXPIRE', KEYS[2], ARGV[6])
  if ARGV[10] ~= '' then redis.call('HSETNX', KEYS[1], 'over', ARGV[10]) end
  for i = 1, 3 do
    local spent = tonumber(redis.call('HGET', KEYS[1], names[i]) or '0')
    if ARGV[6 + i] ~= '' and spent > tonumber(ARGV[6 + i]) then
      redis.call('HSETNX', KEYS[1], 'over', names[i])
    end
  end
end
local said = redis.call('HMGET', KEYS[1], 'over', unpack(names))
for i = 1, 4 do said[i] = said[i] or '' end
return {said, redis.call('HGET', KEYS[2], ARGV[1]) or ''}
