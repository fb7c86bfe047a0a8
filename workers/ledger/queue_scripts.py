"""
The ledger's steps that look into Celery's queues. Each is one that nothing else comes between.

A message of a job has the job's id in its head, as the root of its tasks. It is read as text: what is in it is
Celery's affair.
"""

from __future__ import annotations

from typing import Final

# Whether a queue holds a task of a job. KEYS: queue. ARGV: what a message of the job has in it.
QUEUED: Final = """
for _, list in ipairs(KEYS) do
  local length = redis.call('LLEN', list)
  for first = 0, length - 1, 20 do
    for _, message in ipairs(redis.call('LRANGE', list, first, first + 19)) do
      if string.find(message, ARGV[1], 1, true) then return 1 end
    end
  end
end
return 0
"""

# Set the priority of a job that has not ended, and move its tasks that wait. KEYS: job, then pairs of lists: from, to.
# ARGV: the priority, what a message of the job has in it. Returns the job's state ('': there is no such job), and how
# many tasks were moved. In each list they keep their order, behind what waits there already.
PRIORITISE: Final = """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'done' or state == 'failed' or state == 'cancelled' then return {state or '', 0} end
redis.call('HSET', KEYS[1], 'priority', ARGV[1])
local moved = 0
for i = 2, #KEYS, 2 do
  -- The next one to be taken is the last.
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
"""
