-- Defines: same_job(job, submitted), whether the record of a job is still the one for which a run of a batch began, at
--          whose submission the time was *submitted*. True for '', of a caller that began no run.
--
-- Redis may have lost the record, and the job may have been submitted again under its id. The new plan may have other
-- objects under the same numbers and positions.

local function same_job(job, submitted)
  return submitted == '' or redis.call('HGET', job, 'submitted_at') == submitted
end
