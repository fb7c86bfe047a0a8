-- Add to the counts of written objects, by the way their write was confirmed.
--
-- KEYS: job
-- ARGV: pairs of a field and what to add to it
-- Returns: 0
-- Atomic: the record could expire between the check and the write, and half a record would appear.

if redis.call('EXISTS', KEYS[1]) == 1 then
  for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 0
