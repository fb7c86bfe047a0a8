-- Read the running batches of jobs.
--
-- A key of another type than expected counts as no batches.
--
-- KEYS: for each job: leases, holders, running, moves
-- ARGV: none
-- Returns: the server's time in seconds, then for each job {leases with their ends, holders, running, moves}
-- Atomic: leases and holders must be of one moment, or a batch would appear at the wrong worker.

local found = {redis.call('TIME')[1]}
for i = 1, #KEYS, 4 do
  local leases = redis.pcall('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
  local holders = redis.pcall('HGETALL', KEYS[i + 1])
  local running = redis.pcall('HGETALL', KEYS[i + 2])
  local moves = redis.pcall('HGETALL', KEYS[i + 3])
  local wrong = leases.err or holders.err or running.err or moves.err
  table.insert(found, wrong and {{}, {}, {}, {}} or {leases, holders, running, moves})
end
return found
