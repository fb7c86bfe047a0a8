-- Defines: limits_of(job, store, in_job, in_store, default), the limit of a job and the limit of a store, nil for none.
--
-- *in_job*, *in_store* and *default* are names of fields, '' for none. If the store has no limit of its own, and
-- its default was not removed, the default counts. It is a field of the job's record. A limit below 1 is none.
-- Uses: lib_number

local function limits_of(job, store, in_job, in_store, default)
  local function limit(key, field)
    local found = field ~= '' and number(redis.call('HGET', key, field), 0) or 0
    return found >= 1 and found or nil
  end
  local of_store = limit(store, in_store)
  if not of_store and default ~= '' and redis.call('HEXISTS', store, 'no_default') == 0 then
    of_store = limit(job, default)
  end
  return limit(job, in_job), of_store
end
