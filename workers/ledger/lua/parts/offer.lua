-- Offer parts of an object to all workers, but for those that a worker has claimed.
--
-- KEYS: job, todo, holders, done
-- ARGV: seconds until the keys expire, then parts
-- Returns: 1, 0 if there is no such job
-- Atomic: a claim must not be forgotten, and the keys of a job that is gone must not come back.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 2, #ARGV do redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[i]) end
for i = 2, 4 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
return 1
