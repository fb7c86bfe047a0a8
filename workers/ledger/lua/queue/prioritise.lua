-- Set the priority of a job that has not ended, and move its waiting tasks to the lists of that priority.
--
-- In each list the tasks keep their order, behind the tasks that wait there already.
--
-- KEYS: job, then pairs of lists: from, to
-- ARGV: priority, a text that every message of the job contains, and no other message
-- Returns: {the state of the job, '' if it is unknown; the number of moved tasks}
-- Atomic: a task must never be in neither list, and a worker must not take it from both.

local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'done' or state == 'failed' or state == 'cancelled' then return {state or '', 0} end
redis.call('HSET', KEYS[1], 'priority', ARGV[1])
local moved = 0
for i = 2, #KEYS, 2 do
  -- Workers take the last message of a list first.
  local found = {}
  for last = redis.call('LLEN', KEYS[i]) - 1, 0, -20 do
    local some = redis.call('LRANGE', KEYS[i], math.max(0, last - 19), last)
    for at = #some, 1, -1 do
      if string.find(some[at], ARGV[2], 1, true) then table.insert(found, some[at]) end
    end
  end
  for _, message in ipairs(found) do
    redis.call('LREM', KEYS[i], -1, message)
    redis.call('LPUSH', KEYS[i + 1], message)
  end
  moved = moved + #found
end
return {state, moved}
