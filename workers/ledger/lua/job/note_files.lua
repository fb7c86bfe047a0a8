-- Record what files of a job hash to.
--
-- KEYS: job, done, files
-- ARGV: number, seconds until the key expires, when the job of the run was submitted, then offset and records of
--       consecutive files
-- Returns: 1, 0 if the batch is accounted for, or the job has ended or is not that of the run
-- Atomic: a run that comes late must not change what the manifest is made of.
-- Uses: lib_final, lib_same_job

local state = redis.call('HGET', KEYS[1], 'state')
if not state or final(state) or not same_job(KEYS[1], ARGV[3]) then return 0 end
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return 0 end
for i = 4, #ARGV, 2 do redis.call('SETRANGE', KEYS[3], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[3], ARGV[2])
return 1
