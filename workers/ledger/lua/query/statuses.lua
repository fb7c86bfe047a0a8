-- Read the records of jobs.
--
-- A key of another type than expected is an error of that job alone.
--
-- KEYS: for each job: job, running, holders, moves
-- ARGV: names of fields of the record
-- Returns: for each job {values of the fields, running, holders, moves}, or {error}
-- Atomic: the counters of a job and the progress of its running batches must be of one moment, or their sum would
--         exceed the plan or go back.

local found = {}
for i = 1, #KEYS, 4 do
  local record = redis.pcall('HMGET', KEYS[i], unpack(ARGV))
  local running = redis.pcall('HGETALL', KEYS[i + 1])
  local holders = redis.pcall('HGETALL', KEYS[i + 2])
  local moves = redis.pcall('HGETALL', KEYS[i + 3])
  local wrong = record.err or running.err or holders.err or moves.err
  table.insert(found, wrong and {wrong} or {record, running, holders, moves})
end
return found
