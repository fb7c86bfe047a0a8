-- List jobs again whose records exist: in the index, and among the open jobs unless they have ended.
--
-- KEYS: index of all jobs, set of open jobs, then the jobs
-- ARGV: the ids of the jobs
-- Returns: how many of the jobs were not in the lists
-- Atomic: a job that ends meanwhile must not stay in the set of open jobs.
-- Uses: lib_final

local added = 0
for i = 1, #ARGV do
  local key = KEYS[2 + i]
  if redis.call('TYPE', key).ok == 'hash' then
    local state = redis.call('HGET', key, 'state')
    local at = tonumber(redis.call('HGET', key, 'submitted_at') or '')
    -- A number that somebody damaged may be none: it differs from itself.
    if state and at and at == at then
      added = added + redis.call('ZADD', KEYS[1], 'NX', at, ARGV[i])
      if not final(state) then added = added + redis.call('SADD', KEYS[2], ARGV[i]) end
    end
  end
end
return added
