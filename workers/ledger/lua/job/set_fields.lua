-- Set fields of a job that has not ended.
--
-- KEYS: job
-- ARGV: seconds until the record expires, then field-value pairs
-- Returns: 1 if the fields are set, 0 if the job has ended or is unknown
-- Atomic: the job could end or expire between the check and the write, and its record must then stay as it is.
-- Uses: lib_now, lib_final

local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) then return 0 end
redis.call('HSET', KEYS[1], 'moved_at', now())
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
