-- Record the progress of a run of a batch and renew its lease.
--
-- KEYS: job, done, running, leases, holders, moves, begun
-- ARGV: number, name, objects, bytes, seconds until the keys expire, holder, seconds of the lease, objects in flight,
--       bytes moved, bytes read for checksums, when the job of the run was submitted
-- Returns: 0 to continue, 1 to stop (the job wants no more work, or is not that of the run), 2 to hold the batch (the
--          job is paused)
-- Atomic: progress never goes back, also where two runs of a batch report at the same time, and a batch that is
--         accounted for reports no progress beside its final counts.
-- Uses: lib_now, lib_stopped, lib_same_job

if not same_job(KEYS[1], ARGV[11]) then return 1 end
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
  -- The batch gets on, however often its machine is lost. What lost runs left behind still has to be removed.
  local had = before and tonumber(string.match(before, '%d+')) or 0
  if objects > had and redis.call('HEXISTS', KEYS[7], ARGV[2] .. '#lost') == 1 then
    redis.call('HSET', KEYS[7], ARGV[2] .. '#lost', 0)
  end
  redis.call('HSET', KEYS[3], ARGV[2], after)
  if holds then
    -- The value: "time of the last movement, objects in flight, objects, bytes, bytes moved, bytes read for checksums",
    -- of this run alone.
    local run = ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[9] .. ' ' .. ARGV[10]
    local moved, _, last = string.match(redis.call('HGET', KEYS[6], ARGV[2]) or '', '^(%S+) (%d+) ?(.*)$')
    if not moved or last ~= run then moved = string.format('%.3f', at) end
    redis.call('HSET', KEYS[6], ARGV[2], moved .. ' ' .. ARGV[8] .. ' ' .. run)
  end
  for i = 1, 7 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
if redis.call('HEXISTS', KEYS[1], 'paused') == 1 then return 2 end
return 0
