-- Return whether a queue holds a task of a job.
--
-- A message has the id of the job in its headers, as the root of its tasks. The message is searched as text, because
-- its format belongs to Celery.
--
-- KEYS: the lists of the queue
-- ARGV: a text that every message of the job contains, and no other message
-- Returns: 1 or 0
-- Atomic: a message that moves between two lists meanwhile would be in neither.

for _, list in ipairs(KEYS) do
  local length = redis.call('LLEN', list)
  for first = 0, length - 1, 20 do
    for _, message in ipairs(redis.call('LRANGE', list, first, first + 19)) do
      if string.find(message, ARGV[1], 1, true) then return 1 end
    end
  end
end
return 0
