-- Defines: stopped(job), whether a job wants no more work: it was cancelled, has ended, or is unknown.
-- Uses: lib_final

local function stopped(job)
  local found = redis.call('HMGET', job, 'state', 'cancel')
  return not found[1] or final(found[1]) or found[2] ~= false
end
